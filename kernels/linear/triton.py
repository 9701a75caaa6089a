"""The linear layer's R-operator as one Triton kernel.

Both products are added to one accumulator, one after the other: a joint loop would need twice as
many tiles in flight. The accumulator is float32, or float64 for float64 inputs.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._blocks import require_products, triton_dtype
from .._jit import kernel
from .._numbers import accumulator


@triton.jit
def _add_product(
    a_ptr,
    b_ptr,
    row,
    col,
    num_rows,
    num_cols,
    num_inner,
    out,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):
    """Return a tile of ``out + a b^T``, for rows of ``a`` [n, d] and ``b`` [m, d]."""
    a_row = a_ptr + row[:, None].to(tl.int64) * num_inner
    b_row = b_ptr + col[None, :].to(tl.int64) * num_inner
    for start in range(0, num_inner, INNER):
        inner = start + tl.arange(0, INNER)
        inside = inner < num_inner
        a_mask = (row < num_rows)[:, None] & inside[None, :]
        a = tl.load(a_row + inner[None, :], mask=a_mask, other=0.0)
        b_mask = (col < num_cols)[None, :] & inside[:, None]
        b = tl.load(b_row + inner[:, None], mask=b_mask, other=0.0)
        out = tl.dot(a, b, out, input_precision=PRECISION, out_dtype=ACC)
    return out


@kernel
def linear_tangent_kernel(
    x_dot_ptr,
    weight_ptr,
    x_ptr,
    weight_dot_ptr,
    bias_dot_ptr,
    out_ptr,
    num_rows,
    num_cols,
    num_inner,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    INNER: tl.constexpr,
    PRECISION: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute a tile of ``x_dot W^T + x W_dot^T + bias_dot`` from contiguous operands."""
    # Use one axis of the grid: the others are limited to 65,535 programs. Neighbouring programs
    # share rows of x, which are then in cache.
    across = tl.cdiv(num_cols, COLS)
    row = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    col = tl.program_id(0) % across * COLS + tl.arange(0, COLS)
    out = tl.zeros([ROWS, COLS], ACC)
    out = _add_product(
        x_dot_ptr, weight_ptr, row, col, num_rows, num_cols, num_inner, out, INNER, PRECISION, ACC
    )
    out = _add_product(
        x_ptr, weight_dot_ptr, row, col, num_rows, num_cols, num_inner, out, INNER, PRECISION, ACC
    )
    if HAS_BIAS:
        out += tl.load(bias_dot_ptr + col, mask=col < num_cols, other=0.0).to(ACC)[None, :]
    at = out_ptr + row[:, None].to(tl.int64) * num_cols + col[None, :]
    tl.store(at, out, mask=(row < num_rows)[:, None] & (col < num_cols)[None, :])


class Tile(NamedTuple):
    """Tile sizes, warps and pipeline stages of a launch."""

    rows: int
    cols: int
    inner: int
    num_warps: int
    num_stages: int


def tile_for(dtype: torch.dtype, precision: str, num_rows: int, num_cols: int) -> Tile:
    """Return a tile that fits shared memory and registers of all targets without spilling."""
    if dtype == torch.float64:
        return Tile(32, 32, 16, 4, 2)
    if dtype in (torch.half, torch.bfloat16):
        # Use large tiles only if there are enough of them to fill a device.
        if num_rows * num_cols >= 128 * 128 * 128:
            return Tile(128, 128, 32, 8, 3)
        return Tile(64, 64, 32, 4, 3)
    # tf32x3 splits its operands in registers and would spill with a longer inner block.
    return Tile(64, 64, 32, 4, 3) if precision == "tf32" else Tile(64, 64, 16, 4, 2)


def _torch_uses_tf32() -> bool:
    """Return True if torch multiplies float32 matrices on CUDA devices in tf32."""
    settings = torch.backends.cuda.matmul
    # From torch 2.9 on: once this setting has been set, the older one cannot be read.
    if hasattr(settings, "fp32_precision"):
        return bool(settings.fp32_precision == "tf32")
    return bool(settings.allow_tf32)


def linear_tangent(
    x_dot: Tensor,
    weight: Tensor,
    x: Tensor,
    weight_dot: Tensor,
    bias_dot: Tensor | None = None,
    *,
    precision: str | None = None,
) -> Tensor:
    # `precision` of float32 products is "ieee", "tf32" or, except on AMD, "tf32x3". The default is
    # that of torch's matrix products.
    require_products(x.dtype)
    if precision is None:
        precision = "tf32" if _torch_uses_tf32() else "ieee"
    if x.dtype != torch.float32:
        precision = "ieee"
    x_dot, weight, x, weight_dot = (t.contiguous() for t in (x_dot, weight, x, weight_dot))
    (num_rows, num_inner), num_cols = x.shape, weight.shape[0]
    out = x.new_empty(num_rows, num_cols)
    tile = tile_for(x.dtype, precision, num_rows, num_cols)
    programs = triton.cdiv(num_cols, tile.cols) * triton.cdiv(num_rows, tile.rows)
    if out.numel() == 0:
        return out
    linear_tangent_kernel[(programs,)](
        x_dot,
        weight,
        x,
        weight_dot,
        out if bias_dot is None else bias_dot.contiguous(),
        out,
        num_rows,
        num_cols,
        num_inner,
        HAS_BIAS=bias_dot is not None,
        ROWS=tile.rows,
        COLS=tile.cols,
        INNER=tile.inner,
        PRECISION=precision,
        ACC=triton_dtype(accumulator(x.dtype)),
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )
    return out
