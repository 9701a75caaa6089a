"""The conjugate gradient iteration."""

from .._backend import dispatch
from . import host, reference
from .state import CGState

__all__ = [
    "CGState",
    "cg_direction_",
    "cg_scalars_",
    "cg_update_",
    "host",
    "partial_dot",
]

partial_dot = dispatch(reference.partial_dot)
cg_update_ = dispatch(reference.cg_update_)
cg_scalars_ = dispatch(reference.cg_scalars_)
cg_direction_ = dispatch(reference.cg_direction_)
