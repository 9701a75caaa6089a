"""Replace a network's layers by equivalents with a cheap second backward pass, and back."""

from dataclasses import dataclass
from itertools import pairwise

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from compopt._checks import check_count
from compopt.nn import _layers

SWAPS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _layers.FusedBatchNorm1d,
    nn.BatchNorm2d: _layers.FusedBatchNorm2d,
    nn.BatchNorm3d: _layers.FusedBatchNorm3d,
    nn.InstanceNorm1d: _layers.FusedInstanceNorm1d,
    nn.InstanceNorm2d: _layers.FusedInstanceNorm2d,
    nn.InstanceNorm3d: _layers.FusedInstanceNorm3d,
    nn.LayerNorm: _layers.FusedLayerNorm,
    nn.Sequential: _layers.FusedSequential,
    nn.SiLU: _layers.FusedSiLU,
    nn.Softplus: _layers.FusedSoftplus,
}
"""Replacements. Types must match exactly: a subclass of a layer may compute something else."""

LEFT: dict[type[nn.Module], str] = {
    nn.GroupNorm: "torch's own second backward pass is quicker, and exact to any order",
    nn.RMSNorm: "there is no closed form of it here; torch's derivatives are exact to any order",
}
"""Similar layers that are not swapped, and why."""

_BACK = {fused: plain for plain, fused in SWAPS.items()}
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_NOT_COPIED = ("__dict__", "__weakref__")


@dataclass(frozen=True)
class FuseReport:
    """Result of :func:`fuse`.

    Attributes:
        swapped: new class of each swapped layer, by the layer's name in the network.
        left: reason why a similar layer was not swapped, by the layer's name.
    """

    swapped: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} layers swapped, {len(self.left)} left alone"]
        lines += [f"  {name or '(itself)'} -> {kind}" for name, kind in self.swapped.items()]
        lines += [f"  {name or '(itself)'} left: {why}" for name, why in self.left.items()]
        return "\n".join(lines)


def reason_to_leave(layer: nn.Module) -> str | None:
    """Return why a layer is not swapped, None if it can be or is no similar layer."""
    if type(layer) in SWAPS:
        if isinstance(layer, nn.Softplus) and (layer.beta, layer.threshold) != (1, 20):
            return (
                f"only beta=1 and threshold=20 are supported, got {layer.beta}, {layer.threshold}"
            )
        if getattr(layer, "track_running_stats", False) and isinstance(layer, _INSTANCE_NORMS):
            return "running statistics of an instance norm are not supported"
        return None
    if type(layer) in LEFT:
        return LEFT[type(layer)]
    if type(layer) in _BACK or not isinstance(layer, tuple(SWAPS)):
        return None
    return f"{type(layer).__name__} is a subclass, which may compute something else"


def _needed(layer: nn.Module) -> bool:
    """Return True if swapping has an effect; for a ``Sequential``, if it has a pair to join."""
    if not isinstance(layer, nn.Sequential):
        return True
    layers = list(layer)
    return any(
        isinstance(first, _layers.BatchNorm) and _layers.slope_of(second) is not None
        for first, second in pairwise(layers)
    )


def fuse(module: nn.Module, *, min_size: int = 0) -> FuseReport:
    """Swap layers, in place, for equivalents whose second backward pass is a few memory passes.

    A competitive step differentiates twice. The second time, autograd splits normalizations and
    smooth activations into dozens of operations. ``fuse`` swaps batch norms (together with a
    ``ReLU`` or ``LeakyReLU`` right after them in a ``Sequential``), instance norms, ``LayerNorm``,
    ``SiLU`` and ``Softplus``. A layer stays the same object with the same parameters, buffers,
    hooks and state dict, and computes the same function; only its class changes. Outside training
    with gradients, and in compiled regions, it runs torch's own code. Trace a network with batch
    normalization (``torch.fx``) before fusing it: the tracer only knows torch's own class.

    On a CPU, calls from Python make small layers slower. There, activations with fewer than 524,288
    entries use torch's code. Norms do so only with ``min_size``: torch's third derivative of norms,
    which a penalty inside the loss needs (``detach=False``), is not exact.

    Args:
        module: the network. Modified.
        min_size: number of input entries below which layers use torch's own code. Norms become
            faster from about 131,072 entries on. Keep 0 if the loss contains a derivative of the
            network.

    Returns:
        The layers that were swapped, and those that were not and why. A second call swaps nothing.

    Example:
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU())
        >>> print(fuse(network))
        2 layers swapped, 0 left alone
          (itself) -> FusedSequential
          1 -> FusedBatchNorm1d
    """
    check_count("min_size", min_size, minimum=0)
    swapped: dict[str, str] = {}
    left: dict[str, str] = {}
    for name, layer in module.named_modules():
        reason = reason_to_leave(layer)
        if reason is not None:
            left[name] = reason
        elif type(layer) in SWAPS and _needed(layer):
            layer.__class__ = SWAPS[type(layer)]
            if min_size:
                setattr(layer, _layers.MIN_SIZE, min_size)
            swapped[name] = type(layer).__name__
    return FuseReport(swapped, left)


def unfuse(module: nn.Module) -> nn.Module:
    """Undo :func:`fuse`, in place.

    Args:
        module: the network. Modified.

    Returns:
        ``module``.
    """
    for layer in module.modules():
        kind = type(layer)
        vars(layer).pop(_layers.MIN_SIZE, None)
        if kind in _BACK:
            layer.__class__ = _BACK[kind]
        elif is_parametrized(layer) and kind.__base__ in _BACK:
            # `register_parametrization` derived a class from the fused one for this layer.
            own = {name: vars(kind)[name] for name in vars(kind) if name not in _NOT_COPIED}
            layer.__class__ = type(kind.__name__, (_BACK[kind.__base__],), own)
    return module
