"""Batch normalization, with first and second derivatives."""

from .._backend import dispatch
from . import reference
from .reference import BatchNormSaved, leaky_relu_backward

__all__ = [
    "BatchNormSaved",
    "batch_norm_backward",
    "batch_norm_curvature",
    "batch_norm_forward",
    "batch_norm_tangent",
    "leaky_relu_backward",
]

batch_norm_forward = dispatch(reference.batch_norm_forward)
batch_norm_backward = dispatch(reference.batch_norm_backward)
batch_norm_tangent = dispatch(reference.batch_norm_tangent)
batch_norm_curvature = dispatch(reference.batch_norm_curvature)
