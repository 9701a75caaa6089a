"""Layer normalization with first and second derivatives, in plain torch.

Formulas and notation are those of ``batch_norm/reference.py``. The entries of a row share a mean,
and there is no leaky ReLU.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._numbers import widened

_ATEN: Any = torch.ops.aten


class LayerNormSaved(NamedTuple):
    """Values that the forward pass saves for the derivatives; D means ``num_dims`` dimensions.

    Attributes:
        x: [..., D] input.
        weight: [D] or None for 1.
        mean: [..., 1], returned by :func:`layer_norm_forward`.
        invstd: [..., 1], returned by :func:`layer_norm_forward`.
        num_dims: number of dimensions of a row.
    """

    x: Tensor
    weight: Tensor | None
    mean: Tensor
    invstd: Tensor
    num_dims: int


def _row_mean(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    return x.mean(dims, keepdim=True)


def _last(x: Tensor, num_dims: int) -> tuple[tuple[int, ...], list[int]]:
    """Return the normalized dimensions and the normalized shape."""
    split = x.dim() - num_dims
    return tuple(range(split, x.dim())), list(x.shape[split:])


def layer_norm_forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, num_dims: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize each row of ``x``, the entries along its last ``num_dims`` dimensions.

    Args:
        x: [..., D] input; D means ``num_dims`` dimensions.
        weight: [D] factor, None for 1.
        bias: [D] summand, None for 0.
        num_dims: number of dimensions of a row.
        eps: added to the variance.

    Returns:
        The output; mean and ``1/sqrt(var + eps)``, [..., 1] each.
    """
    return torch.native_layer_norm(x, _last(x, num_dims)[1], weight, bias, eps)


def layer_norm_backward(grad: Tensor, saved: LayerNormSaved) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients for x, weight and bias.

    Args:
        grad: [..., D] cotangent of the output.
        saved: values of the forward pass.
    """
    x, weight, mean, invstd, num_dims = saved
    shape = _last(x, num_dims)[1]
    grad, mask = grad.contiguous(), [True, weight is not None, weight is not None]
    for_x, for_weight, for_bias = _ATEN.native_layer_norm_backward(
        grad, x, shape, mean, invstd, weight, weight, mask
    )
    if weight is None:
        for_weight = for_bias = x.new_zeros(shape)
    return for_x, for_weight, for_bias


def _projected(v: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, num_dims: int) -> Tensor:
    """Return ``r P v`` by row."""
    mask = [True, False, False]
    shape = _last(x, num_dims)[1]
    out: Tensor = _ATEN.native_layer_norm_backward(
        v.contiguous(), x, shape, mean, invstd, None, None, mask
    )[0]
    return out


def layer_norm_tangent(
    v: Tensor,
    v_weight: Tensor,
    v_bias: Tensor,
    saved: LayerNormSaved,
) -> tuple[Tensor, Tensor]:
    """Return the tangent, and ``r P v`` for the curvature.

    Args:
        v: [..., D] change of the input.
        v_weight: [D] change of the weight.
        v_bias: [D] change of the bias.
        saved: values of the forward pass.
    """
    x, weight, mean, invstd, num_dims = saved
    projected = _projected(v, x, mean, invstd, num_dims)
    # Not in place: under `vmap` any of the changes may be batched.
    tangent = torch.addcmul(v_bias, (x - mean).mul_(invstd), v_weight)
    if weight is None:
        return (tangent + projected).to(v.dtype), projected
    return torch.addcmul(tangent, projected, weight.to(projected.dtype)).to(v.dtype), projected


def layer_norm_curvature(
    v: Tensor,
    v_weight: Tensor,
    projected: Tensor,
    grad: Tensor,
    saved: LayerNormSaved,
) -> tuple[Tensor, Tensor]:
    """Return the second derivative's part for x and weight.

    Args:
        v: [..., D] cotangent of the gradient for x.
        v_weight: [D] cotangent of the gradient for the weight.
        projected: [..., D] ``r P v``, returned by :func:`layer_norm_tangent`.
        grad: [..., D] cotangent of the output, as passed to the first backward pass.
        saved: values of the forward pass.
    """
    x, weight, mean, invstd, num_dims = saved
    inner, shape = _last(x, num_dims)
    dtype = x.dtype
    v, grad, x, projected = widened(v, grad, x, projected)
    x_hat = (x - mean).mul_(invstd)
    h = grad if weight is None else grad * weight

    def formed(buffer: Tensor | None) -> tuple[Tensor, Tensor]:
        c = _row_mean(torch.mul(h, x_hat, out=buffer), inner)
        d = _row_mean(torch.mul(v, x_hat, out=buffer), inner)
        # r A. Projecting v is enough: <P v, P h> = <P v, h>.
        a = _row_mean(torch.mul(projected, h, out=buffer), inner)
        total = torch.mul(grad, v_weight, out=buffer)
        total = torch.addcmul(total, v, invstd * c, value=-1, out=buffer)
        total = torch.addcmul(total, h, invstd * d, value=-1, out=buffer)
        out = _projected(total, x, mean, invstd, num_dims)
        out = torch.addcmul(out, x_hat, a * invstd, value=-1, out=None if buffer is None else out)
        # Not `sum`, which for an empty list of dimensions sums over all of them.
        return out.to(dtype), torch.mul(projected, grad, out=buffer).sum_to_size(shape)

    try:
        return formed(torch.empty_like(x_hat))
    except RuntimeError:
        # Under `vmap`, a batched result cannot be written to a tensor that is not batched.
        return formed(None)
