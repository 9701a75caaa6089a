"""Differences between batch and layer normalization, and both in plain torch operations."""

from typing import Any, NamedTuple

from torch import Tensor

from compopt.kernels import operations
from compopt.kernels.batch_norm.reference import BatchNormSaved, leaky_relu_backward
from compopt.kernels.layer_norm.reference import LayerNormSaved

Pair = tuple[Tensor, Tensor]
Triple = tuple[Tensor, Tensor, Tensor]
Running = tuple[Tensor | None, Tensor | None]
Saved = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]
"""x; y, or x where y is not needed; weight; mean; inverse deviation."""


class BatchNormRule(NamedTuple):
    """Batch normalization over dimension 1, followed by a leaky ReLU of slope ``slope``."""

    eps: float
    momentum: float = 0.0
    slope: float = 1.0

    def dims(self, x: Tensor) -> tuple[int, ...]:
        """Return the dimensions that share a mean."""
        return (0, *range(2, x.dim()))

    def sum_to_weight(self, x: Tensor) -> Tensor:
        """Return the sums over the entries that share a weight."""
        return x.sum(self.dims(x))

    def weight_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of a weight."""
        return (x.shape[1],)

    def affine(self, vector: Tensor, x: Tensor) -> Tensor:
        """Return a weight reshaped to broadcast against ``x``."""
        return vector.view(1, -1, *[1] * (x.dim() - 2))

    def forward(self, x: Tensor, weight: Any, bias: Any, running: Running) -> Any:
        """Return output, mean and inverse deviation."""
        return operations.batch_norm_forward(
            x, weight, bias, *running, self.momentum, self.eps, self.slope
        )

    def backward(self, grad: Tensor, saved: Saved) -> Any:
        """Return the gradients for x, weight and bias."""
        return operations.batch_norm_backward(grad, self._named(saved))

    def tangent(self, v: Triple, saved: Saved) -> Any:
        """Return the tangent, and intermediate results that the curvature reuses."""
        return operations.batch_norm_tangent(*v, self._named(saved))

    def curvature(self, v: Pair, reused: Tensor, grad: Tensor, sums: Pair, saved: Saved) -> Any:
        """Return the second derivative's part for x and weight."""
        return operations.batch_norm_curvature(*v, reused, grad, *sums, self._named(saved))

    def _named(self, saved: Saved) -> BatchNormSaved:
        return BatchNormSaved(*saved, self.slope)


class LayerNormRule(NamedTuple):
    """Layer normalization over the last ``num_dims`` dimensions."""

    eps: float
    num_dims: int
    slope: float = 1.0

    def dims(self, x: Tensor) -> tuple[int, ...]:
        """Return the dimensions that share a mean."""
        return tuple(range(x.dim() - self.num_dims, x.dim()))

    def sum_to_weight(self, x: Tensor) -> Tensor:
        """Return the sums over the entries that share a weight."""
        return x.sum_to_size(self.weight_shape(x))

    def weight_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of a weight."""
        return tuple(x.shape[x.dim() - self.num_dims :])

    def affine(self, vector: Tensor, x: Tensor) -> Tensor:
        """Return a weight reshaped to broadcast against ``x``."""
        return vector

    def forward(self, x: Tensor, weight: Any, bias: Any, running: Running) -> Any:
        """Return output, mean and inverse deviation."""
        return operations.layer_norm_forward(x, weight, bias, self.num_dims, self.eps)

    def backward(self, grad: Tensor, saved: Saved) -> Any:
        """Return the gradients for x, weight and bias."""
        return operations.layer_norm_backward(grad, self._named(saved))

    def tangent(self, v: Triple, saved: Saved) -> Any:
        """Return the tangent, and intermediate results that the curvature reuses."""
        return operations.layer_norm_tangent(*v, self._named(saved))

    def curvature(self, v: Pair, reused: Tensor, grad: Tensor, _: Any, saved: Saved) -> Any:
        """Return the second derivative's part for x and weight."""
        return operations.layer_norm_curvature(*v, reused, grad, self._named(saved))

    def _named(self, saved: Saved) -> LayerNormSaved:
        x, _, weight, mean, invstd = saved
        return LayerNormSaved(x, weight, mean, invstd, self.num_dims)


Rule = BatchNormRule | LayerNormRule


class Written:
    """The formulas of ``kernels/batch_norm`` in plain torch, for derivatives of any order."""

    def __init__(self, rule: Rule, x: Tensor, y: Tensor, weight: Tensor | None) -> None:
        self._rule, self._dims, self._x = rule, rule.dims(x), x
        self._y = y
        centered = x - self._mean(x)
        self._r = (self._mean(centered.square()) + rule.eps).rsqrt()
        self._x_hat = centered * self._r
        self._weight = x.new_ones(()) if weight is None else rule.affine(weight, x)

    def _mean(self, v: Tensor) -> Tensor:
        return v.mean(self._dims, keepdim=True)

    def _projected(self, v: Tensor) -> Tensor:
        x_hat = self._x_hat
        return self._r * (v - self._mean(v) - x_hat * self._mean(v * x_hat))

    def _masked(self, v: Tensor) -> Tensor:
        return leaky_relu_backward(v, self._y.detach(), self._rule.slope)

    def gradient(self, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients for x, weight and bias."""
        grad, to_weight = self._masked(grad), self._rule.sum_to_weight
        for_x = self._projected(self._weight * grad).to(self._x.dtype)
        return for_x, to_weight(grad * self._x_hat), to_weight(grad)

    def tangent(self, v: Tensor, v_weight: Tensor, v_bias: Tensor) -> Tensor:
        """Return the change of the output."""
        rule, x = self._rule, self._x
        moved = self._weight * self._projected(v)
        shift = rule.affine(v_weight, x) * self._x_hat + rule.affine(v_bias, x)
        return self._masked(moved + shift).to(v.dtype)

    def curvature(self, v: Tensor, v_weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return the second derivative's part for x and weight."""
        rule, x, x_hat, r = self._rule, self._x, self._x_hat, self._r
        grad = self._masked(grad)
        h = self._weight * grad
        c, d = self._mean(h * x_hat), self._mean(v * x_hat)
        projected = self._projected(v)
        a = self._mean(projected * h)
        total = rule.affine(v_weight, x) * grad - r * (c * v + d * h)
        for_x = self._projected(total) - r * a * x_hat
        return for_x.to(x.dtype), rule.sum_to_weight(projected * grad)
