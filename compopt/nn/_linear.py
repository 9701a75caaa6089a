"""Autograd functions of a linear layer with one kernel for second backward and forward mode.

With ``y = x W^T + b`` and cotangent g of y: ``gx = g W``, ``gW = g^T x``, ``gb = sum(g)``. Given
cotangents v, V and vb of these, a second backward pass returns ``v W^T + x V^T + vb`` for g (the
tangent: also the change of y when x, W and b change by v, V and vb), ``g V`` for x and ``g^T v``
for W.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from compopt._autocast import autocasts
from compopt.kernels import linear_tangent


class _Tangent(torch.autograd.Function):
    """``v W^T + x V^T + vb`` by the kernel; its derivatives use plain torch operations."""

    @staticmethod
    def forward(v: Tensor, weight: Tensor, x: Tensor, v_weight: Tensor, v_bias: Any) -> Tensor:
        return linear_tangent(v, weight, x, v_weight, v_bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *factors, v_bias = inputs
        ctx.has_bias = v_bias is not None
        ctx.save_for_backward(*factors)
        ctx.save_for_forward(*factors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        v, weight, x, v_weight = ctx.saved_tensors
        for_bias = grad.sum(0) if ctx.has_bias else None
        return grad @ weight, grad.T @ v, grad @ v_weight, grad.T @ x, for_bias

    @staticmethod
    def jvp(ctx: Any, *changes: Any) -> Tensor:
        v, weight, x, v_weight = ctx.saved_tensors
        first = _tangent(changes[0], changes[1], changes[4], v, weight)
        return first + _tangent(changes[2], changes[3], None, x, v_weight)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        # A kernel cannot read the memory of batched tensors.
        return torch.vmap(_in_plain_operations, in_dims)(*inputs), 0


def _in_plain_operations(v: Any, weight: Any, x: Any, v_weight: Any, v_bias: Any) -> Tensor:
    out: Tensor = v @ weight.T + x @ v_weight.T
    return out if v_bias is None else out + v_bias


def _tangent(v: Any, v_weight: Any, v_bias: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Return ``v W^T + x V^T + vb``; changes that are None count as zero."""
    if v is not None and v_weight is not None:
        tangent: Tensor = _join(v, weight, x, v_weight, v_bias)
        return tangent
    out = x.new_zeros(()).expand(len(x), len(weight)) if v is None else v @ weight.T
    if v_weight is not None:
        out = out + x @ v_weight.T
    return out if v_bias is None else out + v_bias


class _Backward(torch.autograd.Function):
    """The first backward pass. Its backward returns the tangent for the cotangent."""

    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, x: Tensor, weight: Tensor) -> Any:
        return grad @ weight, grad.T @ x, grad.sum(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, v: Any, v_weight: Any, v_bias: Any) -> Any:
        grad, x, weight = ctx.saved_tensors
        needs_grad, needs_x, needs_weight = ctx.needs_input_grad
        return (
            _tangent(v, v_weight, v_bias, x, weight) if needs_grad else None,
            grad @ v_weight if needs_x and v_weight is not None else None,
            grad.T @ v if needs_weight and v is not None else None,
        )

    @staticmethod
    def jvp(ctx: Any, g_dot: Any, x_dot: Any, w_dot: Any) -> Any:
        grad, x, weight = ctx.saved_tensors
        g_dot = torch.zeros_like(grad) if g_dot is None else g_dot
        for_x, for_weight = g_dot @ weight, g_dot.T @ x
        if w_dot is not None:
            for_x = for_x + grad @ w_dot
        if x_dot is not None:
            for_weight = for_weight + grad.T @ x_dot
        return for_x, for_weight, g_dot.sum(0)


class _Linear(torch.autograd.Function):
    """The layer, for a matrix of inputs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Any) -> Tensor:
        return functional.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, bias = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():
            for_x, for_weight, for_bias = _differentiate(grad, x, weight)
            return for_x, for_weight, for_bias if ctx.has_bias else None
        needs_x, needs_weight, _ = ctx.needs_input_grad
        return (
            grad @ weight if needs_x else None,
            grad.T @ x if needs_weight else None,
            grad.sum(0) if ctx.has_bias else None,
        )

    @staticmethod
    def jvp(ctx: Any, x_dot: Any, w_dot: Any, b_dot: Any) -> Tensor:
        x, weight = ctx.saved_tensors
        return _tangent(x_dot, w_dot, b_dot, x, weight)


_join: Any = _Tangent.apply
_differentiate: Any = _Backward.apply
_apply: Any = _Linear.apply


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x W^T + b``, with a second backward pass that joins its two products into one.

    Value and derivatives equal those of ``torch.nn.functional.linear``. The second backward pass
    (for the output's cotangent) and forward mode (for the output) compute
    ``x_dot W^T + x W_dot^T + b_dot`` (Pearlmutter 1994) by one kernel with one accumulator, instead
    of two products and two sums. :func:`compopt.nn.fuse` does not swap ``Linear`` layers, because
    the other parts of their derivatives are single products, which torch computes as well.

    Args:
        x: [..., d].
        weight: [m, d].
        bias: [m] or None.

    Returns:
        [..., m]. Under autocast and in compiled regions, torch's own function computes it.

    Derivatives: backward mode of any order, forward mode, and forward mode over backward.
    """
    if autocasts(x) or torch.compiler.is_compiling():
        return functional.linear(x, weight, bias)
    output: Tensor = _apply(x.reshape(-1, x.shape[-1]), weight, bias)
    return output.view(*x.shape[:-1], weight.shape[0])
