"""The diversity penalty and leading singular values, in plain torch.

For a matrix W [n, d] with rows w_i, ``w^_i = w_i / |w_i|`` (0 for a zero row) and
``Om_ij = <w^_i, w^_j>``, the penalty is the sum of ``Om_ij^2`` over the ordered pairs i != j with
``Om_ij > tau_pos`` or ``Om_ij < -tau_neg`` (Ayinde, Nishihama and Zurada 2019,
https://arxiv.org/abs/1901.10824, with one threshold for each sign). The selection of pairs is not
differentiated. With ``T_ij = Om_ij`` for selected pairs and 0 for others, the gradient for w^ is
``G = 4 T w^``, and for w_i ``(G_i - w^_i <w^_i, G_i>) / |w_i|``.

The n x n matrix Om is never formed as a whole, only in strips of :data:`STRIP_ENTRIES` entries.
"""

import torch
from torch import Tensor

from .._numbers import accumulator

STRIP_ENTRIES = 1 << 22
"""Entries of a strip of the Gram matrix: 16 MiB in float32."""


def _strips(num_rows: int) -> list[tuple[int, int]]:
    height = max(STRIP_ENTRIES // max(num_rows, 1), 1)
    return [(i, min(i + height, num_rows)) for i in range(0, num_rows, height)]


def inverse_row_norms(weight: Tensor) -> Tensor:
    """Return 1 over the Euclidean norm of each row of ``weight`` [n, d], 0 for a zero row."""
    norms = torch.linalg.vector_norm(weight, dim=1, dtype=accumulator(weight.dtype))
    return torch.where(norms > 0, norms.reciprocal(), 0.0)


def _thresholded(unit: Tensor, first: int, last: int, tau_pos: float, tau_neg: float) -> Tensor:
    """Return rows ``first`` to ``last`` of T."""
    strip = unit[first:last] @ unit.T
    strip.diagonal(offset=first).zero_()
    return strip.masked_fill_((strip <= tau_pos) & (strip >= -tau_neg), 0.0)


def diversity_forward(weight: Tensor, tau_pos: float, tau_neg: float) -> tuple[Tensor, Tensor]:
    """Return the penalty, 0-dim, and the inverse norms of the rows [n].

    Args:
        weight: [n, d], one row per filter. Not modified.
        tau_pos: selects pairs whose cosine is above it.
        tau_neg: selects pairs whose cosine is below ``-tau_neg``.

    Cost: ``2 n^2 d`` flops.
    """
    inverse_norms = inverse_row_norms(weight)
    unit = weight.to(inverse_norms.dtype) * inverse_norms[:, None]
    total = unit.new_zeros(())
    for first, last in _strips(len(weight)):
        total += _thresholded(unit, first, last, tau_pos, tau_neg).square_().sum()
    return total, inverse_norms


def diversity_backward(
    grad: Tensor, weight: Tensor, inverse_norms: Tensor, tau_pos: float, tau_neg: float
) -> Tensor:
    """Return the gradient of the penalty for ``weight``, times ``grad``.

    Args:
        grad: 0-dim cotangent of the penalty; not read on the host.
        weight: [n, d]. Not modified.
        inverse_norms: [n], returned by :func:`diversity_forward`.
        tau_pos: as in :func:`diversity_forward`.
        tau_neg: as in :func:`diversity_forward`.

    Cost: ``4 n^2 d`` flops.
    """
    unit = weight.to(inverse_norms.dtype) * inverse_norms[:, None]
    out = torch.empty_like(unit)
    for first, last in _strips(len(weight)):
        torch.mm(_thresholded(unit, first, last, tau_pos, tau_neg), unit, out=out[first:last])
    return project_rows(out, grad, unit, inverse_norms).to(weight.dtype)


def project_rows(out: Tensor, grad: Tensor, unit: Tensor, inverse_norms: Tensor) -> Tensor:
    """Turn ``T w^`` in ``out`` into the gradient for the rows of the weight, in place."""
    along = (out * unit).sum(1, keepdim=True)
    return out.addcmul_(unit, along, value=-1).mul_((4 * grad * inverse_norms)[:, None])


def gram_product(weight: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``Y = weight block`` and ``Y^T Y``.

    Args:
        weight: [n, d] of any strides, so it may be a transpose.
        block: [d, k] with k at most 64.

    Returns:
        [n, k] and [k, k], in float32, or float64 for float64.
    """
    dtype = accumulator(weight.dtype)
    product = weight.to(dtype) @ block.to(dtype)
    return product, product.T @ product


def orthonormal_product(weight: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q [n, k] with orthonormal columns and R [k, k] such that ``weight block = Q R``.

    Args:
        weight: [n, d] of any strides.
        block: [d, k] with k at most 64 and n.
    """
    dtype = accumulator(weight.dtype)
    left, factor = torch.linalg.qr(weight.to(dtype) @ block.to(dtype))
    return left, factor
