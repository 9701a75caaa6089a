"""Leading singular values by a block power iteration."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .penalties import gram_product, orthonormalizer

Product = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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
    weight: Tensor, right: Tensor, num_iter: int = 1, *, product: Product = gram_product
) -> SingularTriplets:
    """Improve a block of right singular vectors by power iterations; return the triplets.

    An iteration multiplies by the matrix and its transpose and makes the columns orthonormal by a
    Cholesky factor of their Gram matrix, which the product brings along. The values are those of
    the matrix restricted to the block, so they are never above the true ones, and the error of the
    i-th falls by ``(s_{k+1} / s_i)^4`` an iteration.

    Args:
        weight: [n, d]. Not modified, not differentiated.
        right: [d, k] start, such as normal random numbers or an earlier result; k at most 64.
        num_iter: iterations, at least 1.
        product: form of :func:`~compopt.kernels.penalties.gram_product` to use.

    Returns:
        The triplets, in float32, or float64 for float64. A value far below the first has an
        absolute error of the square root of rounding times the first.

    Cost: ``4 n d k`` flops an iteration, and factorizations of k x k matrices; no host read.
    """
    weight = weight.detach()
    for iteration in range(num_iter):
        moved, gram = product(weight, right)
        left = moved @ orthonormalizer(gram)
        right, gram = product(weight.T, left)
        if iteration < num_iter - 1:
            right = right @ orthonormalizer(gram)
    squares, rotation = torch.linalg.eigh(gram)
    values = squares.flip(0).clamp_min(0).sqrt()
    rotation = rotation.flip(1)
    right = right @ rotation
    inverse = torch.where(values > 0, values.reciprocal(), 0.0)
    return SingularTriplets(values, left @ rotation, right * inverse)
