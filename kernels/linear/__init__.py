"""The R-operator of a linear layer."""

from .._backend import dispatch
from . import reference

__all__ = [
    "linear_tangent",
]

linear_tangent = dispatch(reference.linear_tangent)
