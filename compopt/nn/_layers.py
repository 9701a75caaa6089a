"""The layers that :func:`compopt.nn.fuse` swaps in: torch's own, with another forward pass.

Each is a subclass that adds no state, so that a layer becomes one and ceases to be one by a change
of its class alone: parameters, buffers, hooks, state dict and identity stay. Where the fused form
does not apply (evaluation, a compiled region, inputs that torch refuses), torch's forward is used.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compopt._autocast import autocasts
from compopt.nn._activations import bias_activation
from compopt.nn._norms import batch_norm, layer_norm

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def _has_graph(*tensors: Tensor | None) -> bool:
    """Tell whether a second derivative may be asked for, outside compiled regions."""
    if torch.compiler.is_compiling():
        return False
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _average_factor(layer: BatchNorm) -> float:
    """Count the batch, as torch does; return the weight of its statistics."""
    momentum = 0.0 if layer.momentum is None else layer.momentum
    if layer.training and layer.track_running_stats and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if layer.momentum is None:
            momentum = 1.0 / float(layer.num_batches_tracked)
    return momentum


def applies_to_batch(layer: BatchNorm, x: Tensor) -> bool:
    """Tell whether the fused form computes what ``layer`` does on ``x``."""
    if not isinstance(x, Tensor):
        # A symbolic trace: it records what torch does.
        return False
    by_batch = layer.training or (layer.running_mean is None and layer.running_var is None)
    dims = (4,) if isinstance(layer, nn.BatchNorm2d) else (2, 3)
    return (
        by_batch
        and x.dim() in dims
        and x.shape[1] == layer.num_features
        and x.numel() > x.shape[1]
        and x.is_floating_point()
        and _has_graph(x, layer.weight, layer.bias)
    )


def normalize_batch(layer: BatchNorm, x: Tensor, slope: float = 1.0) -> Tensor:
    """Return the output of ``layer`` and a leaky ReLU of slope ``slope``."""
    momentum = _average_factor(layer)
    tracked = not layer.training or layer.track_running_stats
    return batch_norm(
        x,
        layer.running_mean if tracked else None,
        layer.running_var if tracked else None,
        layer.weight,
        layer.bias,
        momentum,
        layer.eps,
        slope=slope,
    )


class FusedBatchNorm1d(nn.BatchNorm1d):
    """``BatchNorm1d`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [N, C] or [N, C, L]."""
        if applies_to_batch(self, input):
            return normalize_batch(self, input)
        return super().forward(input)


class FusedBatchNorm2d(nn.BatchNorm2d):
    """``BatchNorm2d`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [N, C, H, W]."""
        if applies_to_batch(self, input):
            return normalize_batch(self, input)
        return super().forward(input)


# Compilers of older torch cannot follow a union of types.
_FUSED_BATCH_NORMS = (FusedBatchNorm1d, FusedBatchNorm2d)


class FusedLayerNorm(nn.LayerNorm):
    """``LayerNorm`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [..., *normalized_shape]."""
        if not isinstance(input, Tensor):
            return super().forward(input)
        shape = self.normalized_shape
        fits = tuple(input.shape[input.dim() - len(shape) :]) == shape
        # Under autocast torch computes this layer in float32; that choice is left to it.
        plain = not autocasts(input) and input.numel() > 0
        if fits and plain and _has_graph(input, self.weight, self.bias):
            return layer_norm(input, shape, self.weight, self.bias, self.eps)
        return super().forward(input)


class FusedSiLU(nn.SiLU):
    """``SiLU`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return _activate(self, super().forward, input, "silu")


class FusedSoftplus(nn.Softplus):
    """``Softplus`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply to a tensor of any shape."""
        return _activate(self, super().forward, input, "softplus")


def _activate(layer: nn.Module, plain: Any, x: Tensor, kind: str) -> Tensor:
    # Under autocast torch computes softplus in float32; that choice is left to it.
    is_tensor = isinstance(x, Tensor)
    if is_tensor and x.is_floating_point() and not autocasts(x) and _has_graph(x):
        return bias_activation(x, None, kind)
    return plain(x)  # type: ignore[no-any-return]


def slope_of(layer: nn.Module) -> float | None:
    """Return the slope of an activation that batch normalization can take over, else None."""
    if type(layer) is nn.ReLU:
        return 0.0
    # The sign of the output tells the side only if the slope is not negative.
    if type(layer) is nn.LeakyReLU and layer.negative_slope >= 0:
        return float(layer.negative_slope)
    return None


def has_hooks(layer: nn.Module) -> bool:
    """Tell whether something watches the inputs or outputs of ``layer``."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    # Modules have no public way to list their hooks.
    return any(getattr(layer, name) for name in names)


class FusedSequential(nn.Sequential):
    """``Sequential`` that computes batch normalization and a ReLU after it in one.

    A pair is joined when it is reached, so layers may be replaced and hooks added at any time; with
    a hook on either layer the two are called one by one.
    """

    def forward(self, input: Any) -> Any:
        """Pass ``input`` through the layers in turn."""
        layers: Sequence[nn.Module] = list(self)
        index = 0
        while index < len(layers):
            layer = layers[index]
            index += 1
            if index < len(layers) and isinstance(layer, _FUSED_BATCH_NORMS):
                slope = slope_of(layers[index])
                watched = has_hooks(layer) or has_hooks(layers[index])
                if slope is not None and not watched and applies_to_batch(layer, input):
                    input = normalize_batch(layer, input, slope)
                    index += 1
                    continue
            input = layer(input)
        return input
