"""The linear layer's R-operator in plain torch."""

import torch
from torch import Tensor


def linear_tangent(
    x_dot: Tensor,
    weight: Tensor,
    x: Tensor,
    weight_dot: Tensor,
    bias_dot: Tensor | None = None,
) -> Tensor:
    """Return ``x_dot W^T + x W_dot^T + bias_dot``.

    It is the change of ``x W^T + b`` when x, W and b change (Pearlmutter 1994), and the result of
    the layer's second backward pass for the output's cotangent.

    Args:
        x_dot: [n, d].
        weight: [m, d].
        x: [n, d].
        weight_dot: [m, d].
        bias_dot: [m] or None.

    Returns:
        [n, m].

    Cost: ``4 n m d`` flops.
    """
    out = x_dot @ weight.T if bias_dot is None else torch.addmm(bias_dot, x_dot, weight.T)
    return out.addmm_(x, weight_dot.T)
