"""Layer normalization in Triton.

A row fits into one program, so each derivative is one launch, which reads and writes each tensor
once. A program has several rows and computes partial sums for weight and bias over them, which are
then added in a fixed order.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._backend import UnsupportedError
from .._blocks import triton_dtype
from .._jit import kernel
from .._numbers import accumulator
from .reference import LayerNormSaved

FORWARD = tl.constexpr(0)
GRADIENT = tl.constexpr(1)
TANGENT = tl.constexpr(2)
CURVATURE = tl.constexpr(3)

MAX_COLS = 16384
"""Longest row that a program holds in registers."""

_PROGRAMS = 1024


@kernel
def layer_norm_kernel(
    v_ptr,
    grad_ptr,
    x_ptr,
    weight_ptr,
    bias_ptr,
    v_weight_ptr,
    mean_ptr,
    invstd_ptr,
    projected_ptr,
    out_ptr,
    weight_part_ptr,
    bias_part_ptr,
    num_rows,
    num_cols,
    rows_per_program,
    eps: tl.float64,
    KIND: tl.constexpr,
    AFFINE: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Compute the output or one derivative of the rows [n, d], depending on KIND.

    FORWARD also writes mean and invstd [n], TANGENT ``projected = r P v``. GRADIENT and CURVATURE
    write partial sums [programs, d] for the weight, GRADIENT also for the bias. For TANGENT,
    ``bias`` is the change of the bias.
    """
    col = tl.arange(0, BLOCK)
    there = col < num_cols
    size = num_cols.to(ACC)
    weight = tl.zeros([BLOCK], ACC) + 1.0
    if AFFINE:
        weight = tl.load(weight_ptr + col, mask=there, other=0.0).to(ACC)
    shift = tl.zeros([BLOCK], ACC)
    if KIND == TANGENT or (KIND == FORWARD and AFFINE):
        shift = tl.load(bias_ptr + col, mask=there, other=0.0).to(ACC)
    if KIND == TANGENT or KIND == CURVATURE:
        v_weight = tl.load(v_weight_ptr + col, mask=there, other=0.0).to(ACC)
    weight_part = tl.zeros([BLOCK], ACC)
    bias_part = tl.zeros([BLOCK], ACC)
    first = tl.program_id(0) * rows_per_program
    last = tl.minimum(first + rows_per_program, num_rows)
    for row in range(first, last):
        at = tl.cast(row, tl.int64) * num_cols + col
        x = tl.load(x_ptr + at, mask=there, other=0.0).to(ACC)
        if KIND == FORWARD:
            mean = tl.sum(x, 0) / size
            centered = tl.where(there, x - mean, 0.0)
            var = tl.sum(centered * centered, 0) / size
            r = 1.0 / tl.sqrt(var + tl.full([1], eps, ACC))
            tl.store(mean_ptr + row + tl.arange(0, 1), mean + tl.zeros([1], ACC))
            tl.store(invstd_ptr + row + tl.arange(0, 1), r)
            tl.store(out_ptr + at, centered * r * weight + shift, mask=there)
        else:
            mean = tl.load(mean_ptr + row).to(ACC)
            r = tl.load(invstd_ptr + row).to(ACC)
            x_hat = tl.where(there, (x - mean) * r, 0.0)
            if KIND == GRADIENT or KIND == CURVATURE:
                grad = tl.load(grad_ptr + at, mask=there, other=0.0).to(ACC)
                h = weight * grad
            if KIND == TANGENT or KIND == CURVATURE:
                v = tl.load(v_ptr + at, mask=there, other=0.0).to(ACC)
            if KIND == GRADIENT:
                total = h
                weight_part += grad * x_hat
                bias_part += grad
            elif KIND == TANGENT:
                total = v
            else:
                c = tl.sum(h * x_hat, 0) / size
                d = tl.sum(v * x_hat, 0) / size
                total = v_weight * grad - r * (c * v + d * h)
            along = tl.sum(total * x_hat, 0) / size
            out = tl.where(there, r * (total - tl.sum(total, 0) / size - x_hat * along), 0.0)
            if KIND == TANGENT:
                tl.store(projected_ptr + at, out, mask=there)
                out = weight * out + v_weight * x_hat + shift
            if KIND == CURVATURE:
                projected = tl.load(projected_ptr + at, mask=there, other=0.0).to(ACC)
                out -= r * (tl.sum(projected * h, 0) / size) * x_hat
                weight_part += projected * grad
            tl.store(out_ptr + at, out, mask=there)
    part = tl.program_id(0) * num_cols + col
    if KIND == GRADIENT or KIND == CURVATURE:
        tl.store(weight_part_ptr + part, weight_part, mask=there)
    if KIND == GRADIENT:
        tl.store(bias_part_ptr + part, bias_part, mask=there)


def _launch(
    kind: Any,
    x: Tensor,
    weight: Tensor | None,
    num_dims: int,
    tensors: dict[str, Tensor],
    eps: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch the kernel for ``kind``; return its output and the sums for weight and bias."""
    shape = x.shape[x.dim() - num_dims :]
    num_cols, num_rows = shape.numel(), x.numel() // max(shape.numel(), 1)
    if num_cols > MAX_COLS:
        raise UnsupportedError(f"A row must have at most {MAX_COLS} entries, got {num_cols}.")
    acc = accumulator(x.dtype)
    share = max(triton.cdiv(num_rows, _PROGRAMS), 1)
    programs = triton.cdiv(num_rows, share)
    out = torch.empty_like(x)
    parts = x.new_empty(2, programs, num_cols, dtype=acc)
    names = ("v", "grad", "bias", "v_weight", "mean", "invstd", "projected")
    given = {f"{name}_ptr": tensors.get(name, x) for name in names}
    if x.numel() == 0:
        return out, parts.new_zeros(shape), parts.new_zeros(shape)
    block = triton.next_power_of_2(num_cols)
    layer_norm_kernel[(programs,)](
        x_ptr=x,
        weight_ptr=x if weight is None else weight.contiguous(),
        out_ptr=out,
        weight_part_ptr=parts[0],
        bias_part_ptr=parts[1],
        num_rows=num_rows,
        num_cols=num_cols,
        rows_per_program=share,
        eps=eps,
        KIND=kind,
        AFFINE=weight is not None,
        BLOCK=block,
        ACC=triton_dtype(acc),
        num_warps=min(max(block // 256, 1), 16),
        **given,
    )
    return out, parts[0].sum(0).view(shape), parts[1].sum(0).view(shape)


def layer_norm_forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, num_dims: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    x = x.contiguous()
    if weight is None and bias is not None:
        weight = torch.ones_like(bias)
    if weight is not None and bias is None:
        bias = torch.zeros_like(weight)
    outer = (*x.shape[: x.dim() - num_dims], *[1] * num_dims)
    mean, invstd = (x.new_empty(outer, dtype=accumulator(x.dtype)) for _ in range(2))
    shift = x if bias is None else bias.contiguous()
    tensors = {"mean": mean, "invstd": invstd, "bias": shift}
    out, _, _ = _launch(FORWARD, x, weight, num_dims, tensors, eps)
    return out, mean, invstd


def layer_norm_backward(grad: Tensor, saved: LayerNormSaved) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, mean, invstd, num_dims = saved
    tensors = {"grad": grad.contiguous(), "mean": mean, "invstd": invstd}
    return _launch(GRADIENT, x.contiguous(), weight, num_dims, tensors)


def layer_norm_tangent(
    v: Tensor,
    v_weight: Tensor,
    v_bias: Tensor,
    saved: LayerNormSaved,
) -> tuple[Tensor, Tensor]:
    x, weight, mean, invstd, num_dims = saved
    projected = torch.empty_like(x, memory_format=torch.contiguous_format)
    tensors = {"v": v.contiguous(), "mean": mean, "invstd": invstd, "projected": projected}
    tensors |= {"v_weight": v_weight.contiguous(), "bias": v_bias.contiguous()}
    return _launch(TANGENT, x.contiguous(), weight, num_dims, tensors)[0], projected


def layer_norm_curvature(
    v: Tensor,
    v_weight: Tensor,
    projected: Tensor,
    grad: Tensor,
    saved: LayerNormSaved,
) -> tuple[Tensor, Tensor]:
    x, weight, mean, invstd, num_dims = saved
    tensors = {"v": v.contiguous(), "grad": grad.contiguous(), "mean": mean, "invstd": invstd}
    tensors |= {"v_weight": v_weight.contiguous(), "projected": projected.contiguous()}
    return _launch(CURVATURE, x.contiguous(), weight, num_dims, tensors)[:2]
