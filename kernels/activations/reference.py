"""Bias and activation with first and second derivatives, in plain torch.

With ``z = x + bias``, ``y = f(z)`` and cotangent g of y: ``gx = g f'(z)`` and ``gb = sum(gx)``.
Given cotangents v and vb of these and ``u = v + vb``, a second backward pass returns ``u f'(z)``
for g (the tangent: also the change of y when x and bias change by v and vb) and ``u g f''(z)`` for
x (the curvature), whose sum is the result for the bias. Each is one pass of a kernel.

| kind | f | f' | f'' | computed from |
|---|---|---|---|---|
| leaky_relu | z or slope z | 1 or slope | 0 | y |
| tanh | tanh z | 1 - y^2 | -2 y (1 - y^2) | y |
| silu | z s | s (1 + z (1 - s)) | s (1 - s) (2 + z (1 - 2 s)) | z |
| softplus | log(1 + e^z) | s | s (1 - s) | z |

with ``s = 1 / (1 + e^-z)``. As in torch, softplus is z itself above :data:`SOFTPLUS_THRESHOLD`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_ATEN: Any = torch.ops.aten

ACTIVATIONS = ("leaky_relu", "tanh", "silu", "softplus")
FROM_OUTPUT = ("leaky_relu", "tanh")
"""Activations whose derivatives are computed from the output; for others, from the input."""

SOFTPLUS_THRESHOLD = 20.0


class Activation(NamedTuple):
    """An activation, and the dimension of its bias.

    Attributes:
        kind: one of :data:`ACTIVATIONS`.
        slope: slope of the leaky ReLU, at least 0.
        dim: dimension of x that the bias is added along.
    """

    kind: str
    slope: float = 0.0
    dim: int = 1


def _biased(x: Tensor, bias: Tensor | None, dim: int) -> Tensor:
    if bias is None:
        return x
    shape = [1] * x.dim()
    shape[dim] = -1
    return x + bias.view(shape).to(x.dtype)


def _sum_to_bias(x: Tensor, dim: int) -> Tensor:
    dims = [i for i in range(x.dim()) if i != dim % x.dim()]
    return x.sum(dims) if dims else x


def bias_act_forward(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    """Return ``f(x + bias)``.

    Args:
        x: of any shape.
        bias: [C], added along the activation's ``dim``, or None.
        activation: f.
    """
    kind, slope, dim = activation
    z = _biased(x, bias, dim)
    if kind == "leaky_relu":
        return functional.leaky_relu(z, slope)
    if kind == "tanh":
        return z.tanh()
    return functional.silu(z) if kind == "silu" else functional.softplus(z)


def _times_derivative(u: Tensor, source: Tensor, kind: str, slope: float) -> Tensor:
    """Return ``u f'``; ``source`` is y for the kinds in :data:`FROM_OUTPUT`, else z."""
    if kind == "leaky_relu":
        if slope == 0.0:
            return _ATEN.threshold_backward(u, source, 0.0)  # type: ignore[no-any-return]
        return _ATEN.leaky_relu_backward(u, source, slope, True)  # type: ignore[no-any-return]
    if kind == "tanh":
        return _ATEN.tanh_backward(u, source)  # type: ignore[no-any-return]
    if kind == "silu":
        return _ATEN.silu_backward(u, source)  # type: ignore[no-any-return]
    return _ATEN.softplus_backward(u, source, 1.0, SOFTPLUS_THRESHOLD)  # type: ignore[no-any-return]


def bias_act_backward(
    grad: Tensor,
    source: Tensor,
    bias: Tensor | None,
    activation: Activation,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients for x and bias.

    Args:
        grad: cotangent of the output.
        source: the output for the kinds in :data:`FROM_OUTPUT`, else x.
        bias: as in :func:`bias_act_forward`.
        activation: as in :func:`bias_act_forward`.
    """
    kind, slope, dim = activation
    z = source if kind in FROM_OUTPUT else _biased(source, bias, dim)
    for_x = _times_derivative(grad, z, kind, slope)
    return for_x, None if bias is None else _sum_to_bias(for_x, dim)


def bias_act_tangent(
    v: Tensor,
    v_bias: Tensor | None,
    source: Tensor,
    bias: Tensor | None,
    activation: Activation,
) -> Tensor:
    """Return ``(v + v_bias) f'``.

    Args:
        v: change of x.
        v_bias: [C] change of the bias, or None.
        source: as in :func:`bias_act_backward`.
        bias: as in :func:`bias_act_forward`.
        activation: as in :func:`bias_act_forward`.
    """
    kind, slope, dim = activation
    z = source if kind in FROM_OUTPUT else _biased(source, bias, dim)
    return _times_derivative(_biased(v, v_bias, dim), z, kind, slope)


def bias_act_curvature(
    v: Tensor,
    v_bias: Tensor | None,
    grad: Tensor,
    source: Tensor,
    bias: Tensor | None,
    activation: Activation,
) -> tuple[Tensor, Tensor | None]:
    """Return ``(v + v_bias) g f''`` and its sum for the bias.

    Args:
        v: cotangent of the gradient for x.
        v_bias: [C] cotangent of the gradient for the bias, or None.
        grad: cotangent of the output, as passed to the first backward pass.
        source: as in :func:`bias_act_backward`.
        bias: as in :func:`bias_act_forward`.
        activation: as in :func:`bias_act_forward`.
    """
    kind, _, dim = activation
    z = source if kind in FROM_OUTPUT else _biased(source, bias, dim)
    u = _biased(v, v_bias, dim)
    if kind == "leaky_relu":
        out = torch.zeros_like(u)
    elif kind == "tanh":
        out = _ATEN.tanh_backward(u, z).mul_(grad).mul_(z).mul_(-2)
    elif kind == "softplus":
        out = _ATEN.softplus_backward(u, z, 1.0, SOFTPLUS_THRESHOLD).mul_(grad)
        out.mul_(torch.neg(z).sigmoid_().masked_fill_(z > SOFTPLUS_THRESHOLD, 0.0))
    else:
        s = torch.sigmoid(z)
        inner = torch.addcmul(z, z, s, value=-2).add_(2)
        # Only modify tensors computed from `u` in place: under `vmap`, `u` may be batched.
        out = torch.mul(u, s.addcmul_(s, s, value=-1).mul_(inner)).mul_(grad)
    return out, None if bias is None else _sum_to_bias(out, dim)
