"""Layer normalization, with first and second derivatives."""

from .._backend import dispatch
from . import reference
from .reference import LayerNormSaved

__all__ = [
    "LayerNormSaved",
    "layer_norm_backward",
    "layer_norm_curvature",
    "layer_norm_forward",
    "layer_norm_tangent",
]

layer_norm_forward = dispatch(reference.layer_norm_forward)
layer_norm_backward = dispatch(reference.layer_norm_backward)
layer_norm_tangent = dispatch(reference.layer_norm_tangent)
layer_norm_curvature = dispatch(reference.layer_norm_curvature)
