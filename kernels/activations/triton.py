"""Bias and activation in Triton.

Each derivative is one elementwise pass. Entry i has the bias with index ``(i // inner) % C``. The
gradient of the bias takes a second launch, of the deterministic sums of batch normalization.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._blocks import triton_dtype
from .._jit import kernel
from .._numbers import accumulator
from ..batch_norm.triton import Geometry, partial_sums
from .reference import FROM_OUTPUT, SOFTPLUS_THRESHOLD, Activation

LEAKY_RELU = tl.constexpr(0)
TANH = tl.constexpr(1)
SILU = tl.constexpr(2)
SOFTPLUS = tl.constexpr(3)
FORWARD = tl.constexpr(0)
TANGENT = tl.constexpr(1)
CURVATURE = tl.constexpr(2)

_KINDS = {"leaky_relu": LEAKY_RELU, "tanh": TANH, "silu": SILU, "softplus": SOFTPLUS}
_LIMIT = tl.constexpr(SOFTPLUS_THRESHOLD)
_BLOCK = 1024


@triton.jit
def _value(z, slope, KIND: tl.constexpr):
    if KIND == LEAKY_RELU:
        return tl.where(z > 0, z, z * slope)
    elif KIND == TANH:
        e = tl.exp(-2.0 * tl.abs(z))
        return tl.where(z > 0, 1.0, -1.0) * (1.0 - e) / (1.0 + e)
    elif KIND == SILU:
        return z / (1.0 + tl.exp(-z))
    else:
        return tl.where(z > _LIMIT, z, tl.maximum(z, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(z))))


@triton.jit
def _first_derivative(z, slope, KIND: tl.constexpr):
    """Return f' from y for the first two kinds, from z for the others."""
    if KIND == LEAKY_RELU:
        return tl.where(z > 0, 1.0, slope)
    elif KIND == TANH:
        return 1.0 - z * z
    else:
        s = 1.0 / (1.0 + tl.exp(-z))
        if KIND == SILU:
            return s * (1.0 + z * (1.0 - s))
        else:
            return tl.where(z > _LIMIT, 1.0, s)


@triton.jit
def _second_derivative(z, KIND: tl.constexpr):
    if KIND == LEAKY_RELU:
        return z * 0.0
    elif KIND == TANH:
        return -2.0 * z * (1.0 - z * z)
    else:
        s = 1.0 / (1.0 + tl.exp(-z))
        if KIND == SILU:
            return s * (1.0 - s) * (2.0 + z * (1.0 - 2.0 * s))
        else:
            return tl.where(z > _LIMIT, 0.0, s * (1.0 - s))


@triton.jit
def _block(
    v_ptr,
    v_bias_ptr,
    grad_ptr,
    source_ptr,
    bias_ptr,
    out_ptr,
    at,
    mask,
    channel,
    slope,
    WHAT: tl.constexpr,
    KIND: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_V_BIAS: tl.constexpr,
    ACC: tl.constexpr,
):
    z = tl.load(source_ptr + at, mask=mask, other=0.0).to(ACC)
    if HAS_BIAS:
        z += tl.load(bias_ptr + channel, mask=mask, other=0.0).to(ACC)
    if WHAT == FORWARD:
        out = _value(z, slope, KIND)
    else:
        out = tl.load(v_ptr + at, mask=mask, other=0.0).to(ACC)
        if HAS_V_BIAS:
            out += tl.load(v_bias_ptr + channel, mask=mask, other=0.0).to(ACC)
        if WHAT == TANGENT:
            out *= _first_derivative(z, slope, KIND)
        else:
            grad = tl.load(grad_ptr + at, mask=mask, other=0.0).to(ACC)
            out *= grad * _second_derivative(z, KIND)
    tl.store(out_ptr + at, out, mask=mask)


@kernel
def bias_act_kernel(
    v_ptr,
    v_bias_ptr,
    grad_ptr,
    source_ptr,
    bias_ptr,
    out_ptr,
    n,
    inner,
    num_channels,
    slope: tl.float64,
    WHAT: tl.constexpr,
    KIND: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_V_BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    ACC: tl.constexpr,
):
    """Write ``f(source + bias)``, or ``(v + v_bias)`` times f' (TANGENT) or g f'' (CURVATURE)."""
    program = tl.program_id(0)
    at = tl.cast(program, tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = (at // inner) % num_channels
    slope = tl.full([1], slope, ACC)
    # Only the mask of the last block depends on n, so that loads of others keep their full width.
    if tl.cast(program + 1, tl.int64) * BLOCK <= n:
        _block(
            *(v_ptr, v_bias_ptr, grad_ptr, source_ptr, bias_ptr, out_ptr, at, at >= 0, channel),
            *(slope, WHAT, KIND, HAS_BIAS, HAS_V_BIAS, ACC),
        )
    else:
        _block(
            *(v_ptr, v_bias_ptr, grad_ptr, source_ptr, bias_ptr, out_ptr, at, at < n, channel),
            *(slope, WHAT, KIND, HAS_BIAS, HAS_V_BIAS, ACC),
        )


def _launch(
    what: Any,
    source: Tensor,
    bias: Tensor | None,
    activation: Activation,
    v: Tensor | None = None,
    v_bias: Tensor | None = None,
    grad: Tensor | None = None,
) -> Tensor:
    kind, slope, dim = activation
    source = source.contiguous()
    out = torch.empty_like(source)
    dim %= max(source.dim(), 1)
    inner = source.shape[dim + 1 :].numel()
    if what != FORWARD and kind in FROM_OUTPUT:
        bias = None

    def pointer(tensor: Tensor | None) -> Tensor:
        return source if tensor is None else tensor.contiguous()

    if source.numel():
        bias_act_kernel[(triton.cdiv(source.numel(), _BLOCK),)](
            pointer(v),
            pointer(v_bias),
            pointer(grad),
            source,
            pointer(bias),
            out,
            source.numel(),
            inner,
            source.shape[dim],
            slope,
            WHAT=what,
            KIND=_KINDS[kind],
            HAS_BIAS=bias is not None,
            HAS_V_BIAS=v_bias is not None,
            BLOCK=_BLOCK,
            ACC=triton_dtype(accumulator(source.dtype)),
        )
    return out


def _sum_to_bias(x: Tensor, dim: int) -> Tensor:
    """Return the sums of ``x`` over all dimensions except ``dim``."""
    dim %= x.dim()
    x = x.reshape(x.shape[:dim].numel(), x.shape[dim], x.shape[dim + 1 :].numel())
    if x.shape[2] == 1:
        x = x[:, :, 0]
    geometry = Geometry.of(x)
    zero = x.new_zeros(geometry.num_channels, dtype=geometry.dtype)
    return partial_sums(geometry, x, x, x, zero, zero)[0].sum(0)


def bias_act_forward(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    return _launch(FORWARD, x, bias, activation)


def bias_act_backward(
    grad: Tensor,
    source: Tensor,
    bias: Tensor | None,
    activation: Activation,
) -> tuple[Tensor, Tensor | None]:
    out = _launch(TANGENT, source, bias, activation, v=grad)
    return out, None if bias is None else _sum_to_bias(out, activation.dim)


def bias_act_tangent(
    v: Tensor,
    v_bias: Tensor | None,
    source: Tensor,
    bias: Tensor | None,
    activation: Activation,
) -> Tensor:
    return _launch(TANGENT, source, bias, activation, v=v, v_bias=v_bias)


def bias_act_curvature(
    v: Tensor,
    v_bias: Tensor | None,
    grad: Tensor,
    source: Tensor,
    bias: Tensor | None,
    activation: Activation,
) -> tuple[Tensor, Tensor | None]:
    out = _launch(CURVATURE, source, bias, activation, v=v, v_bias=v_bias, grad=grad)
    return out, None if bias is None else _sum_to_bias(out, activation.dim)
