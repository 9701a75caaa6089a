"""Bias and activation, with first and second derivatives."""

from .._backend import dispatch
from . import reference
from .reference import ACTIVATIONS, FROM_OUTPUT, SOFTPLUS_THRESHOLD, Activation

__all__ = [
    "ACTIVATIONS",
    "FROM_OUTPUT",
    "SOFTPLUS_THRESHOLD",
    "Activation",
    "bias_act_backward",
    "bias_act_curvature",
    "bias_act_forward",
    "bias_act_tangent",
]

bias_act_forward = dispatch(reference.bias_act_forward)
bias_act_backward = dispatch(reference.bias_act_backward)
bias_act_tangent = dispatch(reference.bias_act_tangent)
bias_act_curvature = dispatch(reference.bias_act_curvature)
