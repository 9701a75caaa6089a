"""The conjugate gradient iteration, in the form that suits the device."""

from types import ModuleType

from torch import Tensor

from . import reference
from ._backend import triton_form, uses_triton
from .cg_state import CGState


def _form(tensor: Tensor) -> ModuleType:
    return triton_form("cg_triton") if uses_triton(tensor) else reference


def partial_dot(a: Tensor, b: Tensor) -> Tensor:
    """As :func:`~compopt.kernels.reference.partial_dot`."""
    partials: Tensor = _form(a).partial_dot(a, b)
    return partials


def cg_update_(
    x: Tensor,
    y: Tensor | None,
    r: Tensor | None,
    p: Tensor,
    t: Tensor | None,
    q: Tensor | None,
    curvature: Tensor,
    state: CGState,
    source: Tensor | None = None,
) -> Tensor | None:
    """As :func:`~compopt.kernels.reference.cg_update_`."""
    square: Tensor | None = _form(x).cg_update_(x, y, r, p, t, q, curvature, state, source)
    return square


def cg_scalars_(state: CGState, curvature: Tensor, square: Tensor | None) -> None:
    """As :func:`~compopt.kernels.reference.cg_scalars_`."""
    _form(curvature).cg_scalars_(state, curvature, square)


def cg_direction_(p: Tensor, r: Tensor, state: CGState) -> None:
    """As :func:`~compopt.kernels.reference.cg_direction_`."""
    _form(p).cg_direction_(p, r, state)
