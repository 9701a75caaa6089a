"""Kernels of a competitive step, in plain torch and in Triton.

This folder is imported as ``compopt.kernels`` and depends on torch only. Triton is imported when
one of its kernels is first used. Each call chooses the implementation from the device of the
tensors and the current backend (:func:`use_backend`).
"""

if __name__ != "compopt.kernels":
    raise ImportError(
        f"This package must be imported as compopt.kernels, not as {__name__}: "
        "a second copy would have its own kernels."
    )

from ._backend import BACKENDS, resolve_backend, use_backend, uses_triton
from .cg.state import CGState
from .lists.reference import pieces
from .operations import (
    adaptive_setup_,
    average_squares_,
    cg_direction_,
    cg_scalars_,
    cg_update_,
    gather,
    linear_tangent,
    partial_dot,
    scatter,
)
from .power_iteration import SingularTriplets, power_iteration

__all__ = [
    "BACKENDS",
    "CGState",
    "SingularTriplets",
    "adaptive_setup_",
    "average_squares_",
    "cg_direction_",
    "cg_scalars_",
    "cg_update_",
    "gather",
    "linear_tangent",
    "partial_dot",
    "pieces",
    "power_iteration",
    "resolve_backend",
    "scatter",
    "use_backend",
    "uses_triton",
]
