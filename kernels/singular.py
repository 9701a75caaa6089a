"""Leading singular values by a block power iteration."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import penalties
from ._backend import multiplies_in_triton, triton_form


class SingularTriplets(NamedTuple):
    """Approximate leading singular values, largest first, and their vectors.

    Attributes:
        values: [k].
        left: [n, k], orthonormal columns.
        right: [d, k], orthonormal columns; also the start of a later call.
    """

    values: Tensor
    left: Tensor
    right: Tensor


def power_iteration(
    weight: Tensor, right: Tensor, num_iter: int = 1, *, form: Any = None
) -> SingularTriplets:
    """Improve a block of right singular vectors by power iterations; return the triplets.

    An iteration multiplies by the matrix and its transpose and makes the columns orthonormal after
    either. The values are those of the matrix restricted to the block, so they are never above the
    true ones, and the error of the i-th falls by ``(s_{k+1} / s_i)^4`` an iteration.

    Args:
        weight: [n, d]. Not modified, not differentiated.
        right: [d, k] start, such as normal random numbers or an earlier result; k at most 64, n
            and d.
        num_iter: iterations, at least 1.
        form: module with the products to use; the one that suits the device if None.

    Returns:
        The triplets, in float32, or float64 for float64.

    Cost: ``4 n d k`` flops an iteration, and factorizations of k columns.
    """
    weight = weight.detach()
    if form is None:
        form = triton_form("penalties_triton") if multiplies_in_triton(weight) else penalties
    for _ in range(num_iter):
        left, _ = form.orthonormal_product(weight, right)
        right, factor = form.orthonormal_product(weight.T, left)
    before, values, after = torch.linalg.svd(factor.T)
    return SingularTriplets(values, left @ before, right @ after.T)
