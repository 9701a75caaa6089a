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
        right: [d, k], orthonormal columns; can be the start of a later call.
    """

    values: Tensor
    left: Tensor
    right: Tensor


def power_iteration(weight: Tensor, right: Tensor, num_iter: int = 1) -> SingularTriplets:
    """Improve a block of right singular vectors by power iterations; return the triplets.

    An iteration multiplies by the matrix and then by its transpose, and makes the columns
    orthonormal after each. The values are the singular values of the matrix restricted to the
    block, so they never exceed the true ones. Each iteration reduces the error of the i-th by
    ``(s_{k+1} / s_i)^4``.

    Args:
        weight: [n, d]. Not modified, not differentiated.
        right: [d, k] start, such as normal random numbers or an earlier result; k must be at most
            64, n and d.
        num_iter: number of iterations, at least 1.

    Returns:
        The triplets, in float32, or float64 for float64.

    Cost: ``4 n d k`` flops per iteration, and factorizations of k columns.
    """
    weight = weight.detach()
    for _ in range(num_iter):
        left, _ = orthonormal_product(weight, right)
        right, factor = orthonormal_product(weight.T, left)
    before, values, after = torch.linalg.svd(factor.T)
    return SingularTriplets(values, left @ before, right @ after.T)
