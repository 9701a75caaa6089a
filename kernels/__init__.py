"""Vector kernels of the conjugate gradient iteration.

This folder is imported as ``compopt.kernels`` and depends on torch alone.
"""

if __name__ != "compopt.kernels":
    raise ImportError(
        f"This package must be imported as compopt.kernels, not as {__name__}: "
        "a second copy would have its own kernels."
    )

from ._backend import BACKENDS, resolve_backend
from .forms import diversity_backward, diversity_forward, linear_tangent, power_iteration
from .reference import cg_direction_, cg_update_
from .singular import SingularTriplets

__all__ = [
    "BACKENDS",
    "SingularTriplets",
    "cg_direction_",
    "cg_update_",
    "diversity_backward",
    "diversity_forward",
    "linear_tangent",
    "power_iteration",
    "resolve_backend",
]
