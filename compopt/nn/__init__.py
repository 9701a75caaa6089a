"""Layers with a closed-form second backward pass, which mixed products take."""

from compopt.nn._activations import bias_activation
from compopt.nn._fuse import FuseReport, fuse, unfuse
from compopt.nn._linear import linear
from compopt.nn._norms import batch_norm, layer_norm

__all__ = ["FuseReport", "batch_norm", "bias_activation", "fuse", "layer_norm", "linear", "unfuse"]
