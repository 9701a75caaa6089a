"""The R-operator of a linear layer."""

from .._dispatch import dispatch
from . import reference

__all__ = [
    "linear_tangent",
]

linear_tangent = dispatch(reference.linear_tangent)
