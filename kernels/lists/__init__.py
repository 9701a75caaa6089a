"""Lists of tensors and flat vectors."""

from .._backend import dispatch
from . import reference

__all__ = ["gather", "pieces", "scatter"]

pieces = reference.pieces
gather = dispatch(reference.gather)
scatter = dispatch(reference.scatter)
