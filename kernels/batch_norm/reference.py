"""Batch normalization with first and second derivatives, in plain torch.

Notation: m entries share a mean, and ``xhat = (x - mean) r`` with ``r = 1/sqrt(var + eps)``. P
removes the components along 1 and along xhat, ``P v = v - mean(v) - xhat mean(v xhat)``. It is
symmetric, and ``r P`` is the derivative of xhat. With output ``y = w xhat + b``, cotangent g of y
and ``h = w g``:

- gradient: ``gx = r P h``, ``gw = sum(g xhat)``, ``gb = sum(g)``;
- tangent: ``w r P v + vw xhat + vb`` is the change of y when x, w, b change by v, vw, vb. As r P is
  symmetric, it is also the result of the second backward pass for g, given cotangents v, vw, vb;
- curvature: the result of that pass for x and w. Let ``c = mean(h xhat)``, ``d = mean(v xhat)`` and
  ``A = mean(v h) - mean(v) mean(h) - c d = mean(Pv Ph)``, so that ``<v, gx> = m r A``. This depends
  on x through xhat in c and d, and through r, with ``dr/dx = -r^2 xhat / m``. The result for x is
  ``r P (vw g - r c v - r d h) - r^2 A xhat``, and for w it is ``sum(g r P v)``.

``slope`` is the slope of a leaky ReLU applied to y, 1 for none. The sign of the output y shows
which branch an entry took. Statistics are in float32, or float64 for float64 inputs. On the CPU, a
pass over memory costs more than arithmetic, and allocating a tensor as much as a pass. The formulas
below have the fewest passes and allocations that measurements have found.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._numbers import widened

_ATEN: Any = torch.ops.aten


class BatchNormSaved(NamedTuple):
    """Values that the forward pass saves for the derivatives.

    Attributes:
        x: [N, C, ...] input.
        y: [N, C, ...] output; read only if ``slope`` is not 1.
        weight: [C] or None for 1.
        mean: [C], returned by :func:`batch_norm_forward`.
        invstd: [C], returned by :func:`batch_norm_forward`.
        slope: slope of the leaky ReLU, 1 for none.
    """

    x: Tensor
    y: Tensor
    weight: Tensor | None
    mean: Tensor
    invstd: Tensor
    slope: float = 1.0


def _by_channel(vector: Tensor, x: Tensor) -> Tensor:
    """Return a vector [C] reshaped to broadcast along dimension 1 of ``x``."""
    return vector.view(1, -1, *[1] * (x.dim() - 2))


def leaky_relu_backward(grad: Tensor, y: Tensor, slope: float) -> Tensor:
    """Return ``grad`` times the slope of a leaky ReLU whose output is ``y``; differentiable."""
    if slope == 1.0:
        return grad
    if slope == 0.0:
        return _ATEN.threshold_backward(grad, y, 0.0)  # type: ignore[no-any-return]
    return _ATEN.leaky_relu_backward(grad, y, slope, True)  # type: ignore[no-any-return]


def _leaky_relu_(y: Tensor, slope: float) -> Tensor:
    if slope == 1.0:
        return y
    return y.relu_() if slope == 0.0 else torch.nn.functional.leaky_relu_(y, slope)


def batch_norm_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    slope: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize ``x`` [N, C, ...] by the statistics of the batch.

    Args:
        x: [N, C, ...] input.
        weight: [C] factor, None for 1.
        bias: [C] summand, None for 0.
        running_mean: [C], moved towards the mean by ``momentum``, in place; or None.
        running_var: [C], moved towards the unbiased variance, in place; or None.
        momentum: in [0, 1].
        eps: added to the variance.
        slope: slope of the leaky ReLU that follows, 1 for none.

    Returns:
        The output, in the layout of ``x``; mean [C]; ``1/sqrt(var + eps)`` [C].
    """
    y, mean, invstd = torch.native_batch_norm(
        x, weight, bias, running_mean, running_var, True, momentum, eps
    )
    return _leaky_relu_(y, slope), mean, invstd


def _channel_sums(v: Tensor, x: Tensor, mean: Tensor, invstd: Tensor) -> tuple[Tensor, Tensor]:
    """Return [C] sums of ``v`` and of ``v xhat``, in one pass over both."""
    # Any weight would do: its dtype makes the sums have the dtype of the statistics.
    _, dot, total = _ATEN.native_batch_norm_backward(
        v, x, invstd, None, None, mean, invstd, True, 0.0, [False, True, True]
    )
    return total, dot


def _channel_affine(x: Tensor, factor: Tensor, constant: Tensor) -> Tensor:
    """Return ``factor x + constant`` by channel, in one pass."""
    zero, one = torch.zeros_like(factor), torch.ones_like(factor)
    return torch.native_batch_norm(x, factor, constant, zero, one, False, 0.0, 0.0)[0]


def batch_norm_backward(
    grad: Tensor,
    saved: BatchNormSaved,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients for x, weight and bias.

    Args:
        grad: [N, C, ...] cotangent of the output.
        saved: values of the forward pass.
    """
    x, y, weight, mean, invstd, slope = saved
    mean, invstd = widened(mean, invstd)
    grad = leaky_relu_backward(grad, y, slope)
    # The weight's dtype is that of the sums: use the dtype of the statistics.
    factor = torch.ones_like(mean) if weight is None else weight.to(mean.dtype)
    for_x, dot, total = _ATEN.native_batch_norm_backward(
        grad, x, factor, None, None, mean, invstd, True, 0.0, [True, True, True]
    )
    return for_x, dot, total


def _combine(
    v: Tensor,
    total: Tensor,
    dot: Tensor,
    v_weight: Tensor,
    v_bias: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    invstd: Tensor,
) -> Tensor:
    """Return ``w r P v + vw xhat + vb`` from the sums over v."""
    size = x.numel() // x.shape[1]
    scale = invstd if weight is None else invstd * weight
    v_weight, v_bias = widened(v_weight, v_bias)
    factor = (v_weight - scale * dot / size) * invstd
    constant = v_bias - scale * total / size - factor * mean
    wide, x = widened(v, x)
    out = _channel_affine(x, factor, constant)
    return out.addcmul_(wide, _by_channel(scale, x)).to(v.dtype)


def batch_norm_tangent(
    v: Tensor,
    v_weight: Tensor,
    v_bias: Tensor,
    saved: BatchNormSaved,
) -> tuple[Tensor, Tensor]:
    """Return the tangent, and the sums [2, C] of ``v`` and ``v xhat`` for the curvature.

    Args:
        v: [N, C, ...] change of the input.
        v_weight: [C] change of the weight.
        v_bias: [C] change of the bias.
        saved: values of the forward pass.
    """
    x, y, weight, mean, invstd, slope = saved
    mean, invstd = widened(mean, invstd)
    total, dot = _channel_sums(v, x, mean, invstd)
    tangent = _combine(v, total, dot, v_weight, v_bias, x, weight, mean, invstd)
    return leaky_relu_backward(tangent, y, slope), torch.stack([total, dot])


def batch_norm_curvature(
    v: Tensor,
    v_weight: Tensor,
    sums: Tensor,
    grad: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    saved: BatchNormSaved,
) -> tuple[Tensor, Tensor]:
    """Return the second derivative's part for x and weight.

    Args:
        v: [N, C, ...] cotangent of the gradient for x.
        v_weight: [C] cotangent of the gradient for the weight. (That for the bias does not matter.)
        sums: [2, C], returned by :func:`batch_norm_tangent`.
        grad: [N, C, ...] cotangent of the output, as passed to the first backward pass.
        grad_weight: [C] ``sum(g xhat)``, returned by the first backward pass.
        grad_bias: [C] ``sum(g)``, returned by the first backward pass.
        saved: values of the forward pass.
    """
    x, y, weight, mean, invstd, slope = saved
    size = x.numel() // x.shape[1]
    mean, invstd, v_weight = widened(mean, invstd, v_weight)
    grad = leaky_relu_backward(grad, y, slope)
    v_mean, d = sums / size
    # Here c has no factor w: the weight is constant within a channel and is multiplied in below.
    c, g_mean = grad_weight / size, grad_bias / size
    wide_v, wide_g, wide_x = widened(v, grad, x)
    product = _channel_sums(wide_v, wide_g, torch.zeros_like(mean), torch.ones_like(mean))[1]
    a = product / size - v_mean * g_mean - c * d
    scale = invstd if weight is None else invstd * weight
    for_v = -scale * invstd * c
    for_g = invstd * (v_weight - scale * d)
    for_x = -invstd * (invstd * (v_weight * c + scale * (a - 2 * c * d)))
    constant = -for_v * v_mean - for_g * g_mean - for_x * mean
    out = _channel_affine(wide_x, for_x, constant)
    out.addcmul_(wide_v, _by_channel(for_v, x)).addcmul_(wide_g, _by_channel(for_g, x))
    return out.to(x.dtype), invstd * size * a
