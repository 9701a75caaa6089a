"""The set-up of an adaptive step, in the form that suits the device."""

from types import ModuleType

from torch import Tensor

from . import adaptive_reference
from ._backend import triton_form, uses_triton


def _form(tensor: Tensor) -> ModuleType:
    return triton_form("adaptive_triton") if uses_triton(tensor) else adaptive_reference


def adaptive_setup_(
    average: Tensor,
    grad: Tensor,
    beta: float,
    rate: float | Tensor,
    eps: float,
    step_sizes: Tensor,
    root: Tensor | None = None,
    scaled: Tensor | None = None,
    sign: int = 1,
    num_steps: Tensor | None = None,
) -> None:
    """As :func:`~compopt.kernels.adaptive_reference.adaptive_setup_`."""
    _form(grad).adaptive_setup_(
        average, grad, beta, rate, eps, step_sizes, root, scaled, sign, num_steps
    )


def average_squares_(
    average: Tensor, grad: Tensor, beta: float, advance: Tensor | None = None
) -> None:
    """As :func:`~compopt.kernels.adaptive_reference.average_squares_`."""
    _form(grad).average_squares_(average, grad, beta, advance)
