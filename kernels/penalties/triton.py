"""Thresholded Gram strips and tall products as Triton kernels.

They use no atomic operations: each program writes a partial result, and these are added in a fixed
order.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._blocks import require_products
from .._jit import kernel
from .._numbers import accumulator
from .reference import STRIP_ENTRIES, inverse_row_norms, project_rows

_ROWS = 64
"""Rows of a matrix that a program multiplies with a block of vectors."""


@kernel
def gram_strip_kernel(
    weight_ptr,
    inverse_ptr,
    strip_ptr,
    partial_ptr,
    first_row,
    num_strip_rows,
    num_rows,
    num_cols,
    tau_pos: tl.float64,
    tau_neg: tl.float64,
    STORE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute thresholded cosines of strip rows (axis 0) and all rows (axis 1).

    With STORE, write them to ``strip`` [strip rows, n]. Otherwise write the sum of their squares to
    ``partial``, one entry per program; of two mirrored tiles, only one is then computed.
    """
    # Use one axis of the grid: the others are limited to 65,535 programs.
    heights = tl.cdiv(num_strip_rows, ROWS)
    height = tl.program_id(0) % heights
    width = tl.program_id(0) // heights
    row = height * ROWS + tl.arange(0, ROWS)
    left = first_row + row
    right = width * COLS + tl.arange(0, COLS)
    left_there = row < num_strip_rows
    right_there = right < num_rows
    cosine = tl.zeros([ROWS, COLS], ACC)
    # Skip tiles wholly below the diagonal: they mirror those above it.
    needed = STORE or (width + 1) * COLS > first_row + height * ROWS
    if needed:
        for start in range(0, num_cols, INNER):
            inner = start + tl.arange(0, INNER)
            inside = inner < num_cols
            left_at = weight_ptr + left[:, None].to(tl.int64) * num_cols + inner[None, :]
            a = tl.load(left_at, mask=left_there[:, None] & inside[None, :], other=0.0)
            right_at = weight_ptr + right[None, :].to(tl.int64) * num_cols + inner[:, None]
            b = tl.load(right_at, mask=right_there[None, :] & inside[:, None], other=0.0)
            cosine = tl.dot(a, b, cosine, input_precision=PRECISION, out_dtype=ACC)
    cosine *= tl.load(inverse_ptr + left, mask=left_there, other=0.0).to(ACC)[:, None]
    cosine *= tl.load(inverse_ptr + right, mask=right_there, other=0.0).to(ACC)[None, :]
    above = cosine > tl.full([1, 1], tau_pos, ACC)
    below = cosine < -tl.full([1, 1], tau_neg, ACC)
    counts = (above | below) & (left[:, None] != right[None, :])
    cosine = tl.where(counts, cosine, 0.0)
    if STORE:
        at = strip_ptr + row[:, None].to(tl.int64) * num_rows + right[None, :]
        tl.store(at, cosine, mask=left_there[:, None] & right_there[None, :])
    else:
        # Only the pair (i, j) with i < j is added, so it counts twice.
        twice = tl.where(left[:, None] < right[None, :], 2.0, 0.0)
        total = tl.sum(tl.sum(cosine * cosine * twice, 1), 0)
        tl.store(partial_ptr + tl.program_id(0), total)


@kernel
def gram_product_kernel(
    weight_ptr,
    block_ptr,
    out_ptr,
    partial_ptr,
    num_rows,
    num_inner,
    num_cols,
    row_stride,
    inner_stride,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write rows of ``Y = weight block`` [n, k], and parts [programs, COLS, COLS] of ``Y^T Y``."""
    program = tl.program_id(0)
    row = program * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, COLS)
    out = tl.zeros([ROWS, COLS], ACC)
    for start in range(0, num_inner, INNER):
        inner = start + tl.arange(0, INNER)
        inside = inner < num_inner
        rows_at = row[:, None].to(tl.int64) * row_stride
        a_at = weight_ptr + rows_at + inner[None, :].to(tl.int64) * inner_stride
        a = tl.load(a_at, mask=(row < num_rows)[:, None] & inside[None, :], other=0.0)
        b_at = block_ptr + inner[:, None].to(tl.int64) * num_cols + col[None, :]
        b = tl.load(b_at, mask=inside[:, None] & (col < num_cols)[None, :], other=0.0)
        out = tl.dot(a, b.to(a.dtype), out, input_precision=PRECISION, out_dtype=ACC)
    mask = (row < num_rows)[:, None] & (col < num_cols)[None, :]
    tl.store(out_ptr + row[:, None].to(tl.int64) * num_cols + col[None, :], out, mask=mask)
    # Full precision, whatever that of the product: orthogonality depends on it.
    gram = tl.dot(tl.trans(out), out, input_precision="ieee", out_dtype=ACC)
    part = partial_ptr + tl.cast(program, tl.int64) * COLS * COLS
    tl.store(part + col[:, None] * COLS + col[None, :], gram)


def _constants(weight: Tensor, precision: str) -> dict[str, Any]:
    require_products(weight.dtype)
    if weight.dtype == torch.float64:
        return {"INNER": 16, "PRECISION": "ieee", "ACC": tl.float64}
    narrow = weight.dtype in (torch.half, torch.bfloat16)
    inner = 64 if narrow else 32 if precision == "tf32" else 16
    return {"INNER": inner, "PRECISION": precision, "ACC": tl.float32}


def _strip(
    weight: Tensor,
    inverse_norms: Tensor,
    out: Tensor,
    first: int,
    num_strip_rows: int,
    taus: tuple[float, float],
    precision: str,
    *,
    store: bool,
) -> None:
    tile = 32 if weight.dtype == torch.float64 else 64
    programs = triton.cdiv(num_strip_rows, tile) * triton.cdiv(len(weight), tile)
    gram_strip_kernel[(programs,)](
        *(weight, inverse_norms, out, out, first, num_strip_rows, *weight.shape, *taus),
        **{"STORE": store, "ROWS": tile, "COLS": tile, **_constants(weight, precision)},
    )


def diversity_forward(
    weight: Tensor, tau_pos: float, tau_neg: float, *, precision: str = "ieee"
) -> tuple[Tensor, Tensor]:
    # `precision` of float32 products is "ieee", "tf32" or, except on AMD, "tf32x3".
    weight = weight.contiguous()
    inverse_norms = inverse_row_norms(weight)
    tiles = triton.cdiv(len(weight), 32 if weight.dtype == torch.float64 else 64)
    partial = inverse_norms.new_empty(tiles * tiles)
    if tiles:
        taus = tau_pos, tau_neg
        _strip(weight, inverse_norms, partial, 0, len(weight), taus, precision, store=False)
    return partial.sum(), inverse_norms


def diversity_backward(
    grad: Tensor,
    weight: Tensor,
    inverse_norms: Tensor,
    tau_pos: float,
    tau_neg: float,
    *,
    precision: str = "ieee",
) -> Tensor:
    weight = weight.contiguous()
    unit = weight.to(inverse_norms.dtype) * inverse_norms[:, None]
    out = torch.empty_like(unit)
    height = max(STRIP_ENTRIES // max(len(weight), 1), 1)
    for first in range(0, len(weight), height):
        rows = min(height, len(weight) - first)
        strip = unit.new_empty(rows, len(weight))
        taus = tau_pos, tau_neg
        _strip(weight, inverse_norms, strip, first, rows, taus, precision, store=True)
        torch.mm(strip, unit, out=out[first : first + rows])
    return project_rows(out, grad, unit, inverse_norms).to(weight.dtype)


def gram_product(
    weight: Tensor, block: Tensor, *, precision: str = "ieee"
) -> tuple[Tensor, Tensor]:
    (num_rows, num_inner), num_cols = weight.shape, block.shape[1]
    constants = _constants(weight, precision)
    dtype = accumulator(weight.dtype)
    cols = max(triton.next_power_of_2(num_cols), 16)
    out = weight.new_empty(num_rows, num_cols, dtype=dtype)
    programs = triton.cdiv(num_rows, _ROWS)
    if out.numel() == 0:
        return out, out.new_zeros(num_cols, num_cols)
    partial = weight.new_empty(programs, cols, cols, dtype=dtype)
    gram_product_kernel[(programs,)](
        *(weight, block.contiguous(), out, partial, num_rows, num_inner, num_cols),
        *weight.stride(),
        **{"ROWS": _ROWS, "COLS": cols, **constants},
    )
    return out, partial.sum(0)[:num_cols, :num_cols]


def orthonormal_product(weight: Tensor, block: Tensor) -> tuple[Tensor, Tensor]:
    # Cholesky QR: factorize Gram matrices, the first of which comes with the product. Three rounds,
    # with a shift against singularity, are as accurate as Householder's method: Fukaya et al.
    # (2020), Shifted Cholesky QR. https://doi.org/10.1137/18M1218212. Nothing is read on the host.
    product, gram = gram_product(weight, block)
    size = gram.shape[0]
    eye = torch.eye(size, dtype=gram.dtype, device=gram.device)
    tiny = torch.finfo(gram.dtype)
    total = eye
    for multiple in (4 * size, 1, 1):
        shift = multiple * tiny.eps * gram.diagonal().sum() + tiny.tiny
        upper = torch.linalg.cholesky_ex(gram + shift * eye)[0].T
        product = product @ torch.linalg.solve_triangular(upper, eye, upper=True)
        total = upper @ total
        gram = product.T @ product
    return product, total
