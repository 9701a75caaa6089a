"""Layers whose second backward pass is a closed form: the products differentiate twice."""

from compopt.nn._norms import batch_norm, layer_norm

__all__ = ["batch_norm", "layer_norm"]
