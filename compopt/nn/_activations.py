"""Autograd functions of bias and activation; ``_norms.py`` explains the nodes."""

from typing import Any, NoReturn

import torch
from torch import Tensor

from compopt.kernels import operations
from compopt.kernels.activations import reference as activations
from compopt.nn._norms import is_dual, refuse_forward_mode


def _written(z: Tensor, activation: activations.Activation) -> tuple[Tensor, Tensor]:
    """Return f' and f'' in plain torch operations, which can be differentiated to any order."""
    name, slope, _ = activation
    if name == "leaky_relu":
        return torch.where(z > 0, z.new_ones(()), z.new_full((), slope)), torch.zeros_like(z)
    if name == "tanh":
        y = z.tanh()
        first = 1 - y * y
        return first, -2 * y * first
    s = z.sigmoid()
    if name == "silu":
        return s * (1 + z * (1 - s)), s * (1 - s) * (2 + z * (1 - 2 * s))
    beyond = z > activations.SOFTPLUS_THRESHOLD
    return s.masked_fill(beyond, 1.0), (s * (1 - s)).masked_fill(beyond, 0.0)


def _biased(x: Tensor, bias: Tensor | None, dim: int) -> Tensor:
    if bias is None:
        return x
    shape = [1] * x.dim()
    shape[dim] = -1
    return x + bias.view(shape).to(x.dtype)


def _sum_to_bias(x: Tensor, bias: Tensor | None, dim: int) -> Tensor | None:
    if bias is None:
        return None
    dims = [i for i in range(x.dim()) if i != dim % x.dim()]
    # `sum` over an empty list of dimensions would sum over all of them.
    return (x.sum(dims) if dims else x).to(bias.dtype)


def _cast(gradient: Tensor | None, like: Tensor | None) -> Tensor | None:
    return None if gradient is None or like is None else gradient.to(like.dtype)


class _Curvature(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, bias: Any, given: Any, activation: activations.Activation) -> Tensor:
        return x.new_zeros(()).expand(x.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, bias, given, ctx.activation = inputs
        ctx.save_for_backward(x, bias, *given)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        x, bias, grad, source = ctx.saved_tensors
        dim = ctx.activation.dim
        if torch.is_grad_enabled():
            out = u * grad * _written(_biased(x, bias, dim), ctx.activation)[1]
            return out, _sum_to_bias(out, bias, dim), None, None
        out, for_bias = operations.bias_act_curvature(u, None, grad, source, bias, ctx.activation)
        return out, _cast(for_bias, bias), None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        refuse_forward_mode()


class _Backward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(grad: Tensor, u: Any, given: Any, activation: activations.Activation) -> Any:
        _, source, bias = given
        for_x, for_bias = operations.bias_act_backward(grad, source, bias, activation)
        return for_x, _cast(for_bias, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, _, given, ctx.activation = inputs
        ctx.save_for_backward(*given)

    @staticmethod
    def backward(ctx: Any, v: Tensor, v_bias: Any = None) -> Any:
        x, source, bias = ctx.saved_tensors
        dim = ctx.activation.dim
        u = v if bias is None else _biased(v, v_bias, dim)
        if torch.is_grad_enabled():
            out = u * _written(_biased(x, bias, dim), ctx.activation)[0]
        else:
            out = operations.bias_act_tangent(u, None, source, bias, ctx.activation)
        return out, u, None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        refuse_forward_mode()


class _BiasActivation(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, bias: Any, activation: activations.Activation) -> Tensor:
        y: Tensor = operations.bias_act_forward(x, bias, activation)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, bias, ctx.activation = inputs
        source = output if ctx.activation.kind in activations.FROM_OUTPUT else x
        ctx.save_for_backward(x, source, bias)
        ctx.save_for_forward(x, source, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        given = x, source, bias = ctx.saved_tensors
        dim = ctx.activation.dim
        if is_dual(grad, x, bias):
            out = grad * _written(_biased(x, bias, dim), ctx.activation)[0]
            return out, _sum_to_bias(out, bias, dim), None
        if torch.is_grad_enabled():
            token = _hand_out(x, bias, (grad, source), ctx.activation)
            return *_gradients(grad, token, given, ctx.activation), None
        return *_Backward.forward(grad, None, given, ctx.activation), None

    @staticmethod
    def jvp(ctx: Any, v: Any, v_bias: Any, *_: Any) -> Tensor:
        x, _, bias = ctx.saved_tensors
        v = torch.zeros_like(x) if v is None else v
        changed = v if bias is None or v_bias is None else _biased(v, v_bias, ctx.activation.dim)
        return changed * _written(_biased(x, bias, ctx.activation.dim), ctx.activation)[0]


_hand_out: Any = _Curvature.apply
_gradients: Any = _Backward.apply
_activate: Any = _BiasActivation.apply


def bias_activation(
    x: Tensor, bias: Tensor | None, kind: str, *, slope: float = 0.01, dim: int = 1
) -> Tensor:
    """Return an activation of ``x + bias``, with closed-form first and second backward passes.

    Args:
        x: of any shape.
        bias: [C], added along ``dim``, or None.
        kind: "leaky_relu", "tanh", "silu" or "softplus" (with torch's defaults).
        slope: slope of the leaky ReLU, at least 0; 0 for ReLU.
        dim: dimension of ``x`` that ``bias`` is added along.

    Returns:
        The output, in the shape of ``x``. Derivatives as in :func:`compopt.nn.batch_norm`.

    Raises:
        ValueError: if ``kind`` is unknown or ``slope`` is negative.
    """
    if kind not in activations.ACTIVATIONS:
        known = ", ".join(activations.ACTIVATIONS)
        raise ValueError(f"`kind` must be one of {known}, got {kind!r}.")
    if not slope >= 0:
        raise ValueError(f"`slope` must be at least 0, got {slope!r}: y has the sign of x.")
    output: Tensor = _activate(x, bias, activations.Activation(kind, slope, dim))
    return output
