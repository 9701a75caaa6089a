"""Layers that :func:`compopt.nn.fuse` swaps in: subclasses of torch's with another ``forward``.

They add no state, so swapping a layer only changes its class: parameters, buffers, hooks, state
dict and identity stay. If the fused form does not apply (evaluation, a compiled region, inputs
that torch rejects), they call torch's ``forward``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compopt._autocast import autocasts
from compopt.nn._activations import bias_activation
from compopt.nn._norms import batch_norm, layer_norm

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
InstanceNorm = nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d

ACTIVATIONS_GAIN_FROM = {"cpu": 2**19}
"""Number of entries from which closed forms of activations beat torch's, by type of device.

For fewer, calls from Python take longer than they save. Torch's derivatives are exact to any order.
"""

MIN_SIZE = "_fused_from"
"""Attribute of a layer: number of input entries from which its closed form is used."""


def is_large(layer: nn.Module, x: Tensor) -> bool:
    """Return True if an input has at least the ``min_size`` that was passed to ``fuse``."""
    least: int = getattr(layer, MIN_SIZE, 0)
    return x.numel() >= least


def _has_graph(*tensors: Tensor | None) -> bool:
    """Return True if a second derivative may be needed, outside compiled regions."""
    if torch.compiler.is_compiling():
        return False
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _average_factor(layer: BatchNorm) -> float:
    """Count the batch, as torch does, and return the weight of its statistics."""
    momentum = 0.0 if layer.momentum is None else layer.momentum
    if layer.training and layer.track_running_stats and layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if layer.momentum is None:
            momentum = 1.0 / float(layer.num_batches_tracked)
    return momentum


def _dims(layer: nn.Module) -> tuple[int, ...]:
    """Return the allowed numbers of dimensions of an input, including the batch dimension."""
    if isinstance(layer, nn.BatchNorm1d):
        return (2, 3)
    if isinstance(layer, nn.InstanceNorm1d):
        return (3,)
    return (4,) if isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d) else (5,)


def applies_to_batch(layer: BatchNorm, x: Tensor) -> bool:
    """Return True if the fused form can replace ``layer`` on ``x``."""
    if not isinstance(x, Tensor):
        # In a symbolic trace, let torch's own layer be recorded.
        return False
    by_batch = layer.training or (layer.running_mean is None and layer.running_var is None)
    return (
        by_batch
        and x.dim() in _dims(layer)
        and is_large(layer, x)
        and x.shape[1] == layer.num_features
        and x.numel() > x.shape[1]
        and x.is_floating_point()
        and _has_graph(x, layer.weight, layer.bias)
    )


def normalize_batch(layer: BatchNorm, x: Tensor, slope: float = 1.0) -> Tensor:
    """Return the output of ``layer`` followed by a leaky ReLU of slope ``slope``."""
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


class FusedBatchNorm3d(nn.BatchNorm3d):
    """``BatchNorm3d`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [N, C, D, H, W]."""
        if applies_to_batch(self, input):
            return normalize_batch(self, input)
        return super().forward(input)


# A tuple, because compilers of older torch do not support a union of types.
_FUSED_BATCH_NORMS = (FusedBatchNorm1d, FusedBatchNorm2d, FusedBatchNorm3d)


def _normalize_each(layer: InstanceNorm, plain: Any, x: Tensor) -> Tensor:
    """Normalize each channel of each sample, with torch's own code if the fused form cannot."""
    if (
        not isinstance(x, Tensor)
        or layer.track_running_stats
        or x.dim() not in _dims(layer)
        or x.shape[1] != layer.num_features
        or x[0, 0].numel() < 2
        or len(x) == 0
        or not x.is_floating_point()
        or autocasts(x)
        or not is_large(layer, x)
        or not _has_graph(x, layer.weight, layer.bias)
        or (layer.affine and layer.weight.dtype != x.dtype)
    ):
        return plain(x)  # type: ignore[no-any-return]
    y = layer_norm(x.flatten(2), (x[0, 0].numel(),), None, None, layer.eps).view(x.shape)
    if not layer.affine:
        return y
    shape = (-1, *[1] * (x.dim() - 2))
    return torch.addcmul(layer.bias.view(shape), y, layer.weight.view(shape))


class FusedInstanceNorm1d(nn.InstanceNorm1d):
    """``InstanceNorm1d`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [N, C, L]."""
        return _normalize_each(self, super().forward, input)


class FusedInstanceNorm2d(nn.InstanceNorm2d):
    """``InstanceNorm2d`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [N, C, H, W]."""
        return _normalize_each(self, super().forward, input)


class FusedInstanceNorm3d(nn.InstanceNorm3d):
    """``InstanceNorm3d`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [N, C, D, H, W]."""
        return _normalize_each(self, super().forward, input)


class FusedLayerNorm(nn.LayerNorm):
    """``LayerNorm`` with a closed second backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize [..., *normalized_shape]."""
        if not isinstance(input, Tensor):
            return super().forward(input)
        shape = self.normalized_shape
        fits = tuple(input.shape[input.dim() - len(shape) :]) == shape
        # Under autocast, use torch's layer: it chooses float32.
        plain = not autocasts(input) and input.numel() > 0 and is_large(self, input)
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
    # Under autocast, use torch's layer: it chooses float32 for softplus.
    if (
        isinstance(x, Tensor)
        and x.numel() >= ACTIVATIONS_GAIN_FROM.get(x.device.type, 0)
        and is_large(layer, x)
        and x.is_floating_point()
        and not autocasts(x)
        and _has_graph(x)
    ):
        return bias_activation(x, None, kind)
    return plain(x)  # type: ignore[no-any-return]


def slope_of(layer: nn.Module) -> float | None:
    """Return the slope of an activation that can be joined to batch normalization, else None."""
    if type(layer) is nn.ReLU:
        return 0.0
    # With a negative slope, the sign of the output would not give the sign of the input.
    if type(layer) is nn.LeakyReLU and layer.negative_slope >= 0:
        return float(layer.negative_slope)
    return None


def has_hooks(layer: nn.Module) -> bool:
    """Return True if ``layer`` has forward or backward hooks."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    # Modules have no public way to list their hooks.
    return any(getattr(layer, name) for name in names)


class FusedSequential(nn.Sequential):
    """``Sequential`` that joins batch normalization and the ReLU after it into one operation.

    It looks for pairs in each forward pass, so layers may be replaced and hooks added at any time.
    If either layer has a hook, the two are called separately.
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
