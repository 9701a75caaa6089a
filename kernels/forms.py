"""Which module computes layers and penalties: plain torch, or Triton where that is in force."""

from typing import Any

from torch import Tensor

from . import activations, linear_reference, norms, penalties
from ._backend import multiplies_in_triton, triton_form, uses_triton

_MAX_ROW = 16384
"""Longest row of layer normalization that a Triton program holds."""


def batch_norm(x: Tensor) -> Any:
    """Return the module with the functions ``batch_norm_*`` for tensors like ``x``."""
    return triton_form("norms_triton") if uses_triton(x) else norms


def layer_norm(x: Tensor, num_dims: int) -> Any:
    """Return the module with the functions ``layer_norm_*`` for rows of ``num_dims`` dimensions."""
    fits = x.shape[x.dim() - num_dims :].numel() <= _MAX_ROW
    return triton_form("layer_norm_triton") if fits and uses_triton(x) else norms


def activation(x: Tensor) -> Any:
    """Return the module with the functions ``bias_act_*`` for tensors like ``x``."""
    return triton_form("activations_triton") if uses_triton(x) else activations


def linear_tangent(
    x_dot: Tensor,
    weight: Tensor,
    x: Tensor,
    weight_dot: Tensor,
    bias_dot: Tensor | None = None,
) -> Tensor:
    """As :func:`~compopt.kernels.linear_reference.linear_tangent`."""
    form = triton_form("linear_triton") if multiplies_in_triton(x) else linear_reference
    out: Tensor = form.linear_tangent(x_dot, weight, x, weight_dot, bias_dot)
    return out


def _penalties(weight: Tensor) -> Any:
    return triton_form("penalties_triton") if multiplies_in_triton(weight) else penalties


def diversity_forward(weight: Tensor, tau_pos: float, tau_neg: float) -> tuple[Tensor, Tensor]:
    """As :func:`~compopt.kernels.penalties.diversity_forward`."""
    found: tuple[Tensor, Tensor] = _penalties(weight).diversity_forward(weight, tau_pos, tau_neg)
    return found


def diversity_backward(
    grad: Tensor, weight: Tensor, inverse_norms: Tensor, tau_pos: float, tau_neg: float
) -> Tensor:
    """As :func:`~compopt.kernels.penalties.diversity_backward`."""
    form = _penalties(weight)
    out: Tensor = form.diversity_backward(grad, weight, inverse_norms, tau_pos, tau_neg)
    return out
