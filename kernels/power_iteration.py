"""Leading singular values and vectors by a block power iteration."""

from typing import NamedTuple

import torch
from torch import Tensor

from .operations import orthonormal_product


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


def power_iteration(weight: Tensor, right: Tensor, num_iter: int = 1) -> SingularTriplets:
    """Improve a block of right singular vectors by power iterations; return the triplets.

    An iteration multiplies by the matrix and its transpose and makes the columns orthonormal after
    either. The values are those of the matrix restricted to the block, so they are never above the
    true ones, and the error of the i-th falls by ``(s_{k+1} / s_i)^4`` an iteration.

    Args:
        weight: [n, d]. Not modified, not differentiated.
        right: [d, k] start, such as normal random numbers or an earlier result; k at most 64, n
            and d.
        num_iter: iterations, at least 1.

    Returns:
        The triplets, in float32, or float64 for float64.

    Cost: ``4 n d k`` flops an iteration, and factorizations of k columns.
    """
    weight = weight.detach()
    for _ in range(num_iter):
        left, _ = orthonormal_product(weight, right)
        right, factor = orthonormal_product(weight.T, left)
    before, values, after = torch.linalg.svd(factor.T)
    return SingularTriplets(values, left @ before, right @ after.T)
