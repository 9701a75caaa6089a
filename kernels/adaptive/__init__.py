"""The set-up of an adaptive step."""

from .._backend import dispatch
from . import reference

__all__ = [
    "adaptive_setup_",
    "average_squares_",
]

adaptive_setup_ = dispatch(reference.adaptive_setup_)
average_squares_ = dispatch(reference.average_squares_)
