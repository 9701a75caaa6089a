"""Losses and gradients that a ``GradScaler`` has scaled."""

import gc
import sys
import weakref
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.amp import GradScaler

from compopt.kernels.lists.tables import Place

NOT_UNSCALED = (
    "The gradients of `optimizer.backward(loss, scaler=scaler)` are still scaled. Call "
    "`scaler.step(optimizer)` and `scaler.update()` in place of `optimizer.step()`; or "
    "`scaler.unscale_(optimizer)` before it, which leaves it to you to skip a step that overflowed."
)
RESCALED = (
    "`scaler` has another scale now, {now:g}, than at `optimizer.backward(loss, scaler=scaler)`, "
    "{then:g}. Call `optimizer.backward` again, then `scaler.step(optimizer)`, and only then "
    "`scaler.update()`."
)
NOT_UPDATED = (
    "`scaler` has unscaled gradients of this optimizer since its last update, and would not "
    "unscale those of another `backward`. Call `scaler.update()` before it."
)
SCALED_BY_HAND = (
    "`{name}` has been multiplied by the scale of a `GradScaler`, {scale:g}: mixed products and "
    "moves would be those of the scaled loss. {remedy}"
)
SMALLEST_NUMBER = 16.0
"""Smaller numbers that multiply a loss are taken for weights."""

# Operations after which a scaled loss is still scaled, and those that average scaled losses.
_LINEAR = (
    *("Add", "Sub", "Neg", "Div", "Mean", "Sum", "Stack", "Select"),
    *("View", "Reshape", "Unsqueeze", "Squeeze", "ToCopy", "Clone"),
)


def check_unscaled(losses: Mapping[str, Tensor | None], remedy: str, *, reads: bool) -> None:
    """Raise if a loss is the product of another with the scale of a ``GradScaler`` in use.

    Args:
        losses: scalars by name.
        remedy: what to do instead.
        reads: whether to read factors on a device, to detect copied scales. Otherwise such
            factors are compared by identity.

    Cost: nothing without a scaler; with one, a walk over the last operations of each loss.
    """
    scalers = _SCALERS.in_use()
    if not scalers:
        return
    for name, loss in losses.items():
        # Skip what is not a tensor: a later check raises an error with its name.
        if not isinstance(loss, Tensor) or Place.of(loss).capturing:
            continue
        for factor in _factors(loss):
            scale = _scale_among(factor, scalers, reads)
            if scale is not None:
                raise ValueError(SCALED_BY_HAND.format(name=name, scale=scale, remedy=remedy))


def check_ready(scaler: GradScaler, optimizer: torch.optim.Optimizer) -> None:
    """Raise if ``scaler`` would not unscale new gradients of ``optimizer``."""
    if _stage(scaler, optimizer) not in ("READY", None):
        raise RuntimeError(NOT_UPDATED)


def check_taken_back(scaler: GradScaler, scale: float, optimizer: torch.optim.Optimizer) -> None:
    """Raise unless ``scaler`` has unscaled the gradients of ``optimizer``, by ``scale``."""
    if scaler.get_scale() != scale:
        raise RuntimeError(RESCALED.format(now=scaler.get_scale(), then=scale))
    if _stage(scaler, optimizer) not in ("UNSCALED", None):
        raise RuntimeError(NOT_UNSCALED)


def _stage(scaler: GradScaler, optimizer: torch.optim.Optimizer) -> str | None:
    """Return what ``scaler`` has done for ``optimizer`` since its update; None if unknown."""
    # Torch has no public interface for this.
    states = getattr(scaler, "_per_optimizer_states", None)
    if states is None:
        return None
    state = states.get(id(optimizer))
    return "READY" if state is None else str(state["stage"].name)


def _factors(loss: Tensor) -> Iterator[Tensor]:
    """Yield the 0-dim tensors by which the last operations of a loss multiply."""
    nodes = [loss.grad_fn]
    for node in nodes:
        kind = type(node).__name__
        if kind == "MulBackward0":
            for factor in (_saved(node, "_saved_other"), _saved(node, "_saved_self")):
                if factor is not None and not (factor.dim() or factor.requires_grad):
                    yield factor
        elif not kind.startswith(_LINEAR):
            continue
        if len(nodes) < 100:
            nodes += [following for following, _ in node.next_functions]  # type: ignore[union-attr]


def _saved(node: object, name: str) -> Tensor | None:
    try:
        value = getattr(node, name)
    except RuntimeError:
        # The graph was freed: other checks report it.
        return None
    return value if isinstance(value, Tensor) else None


def _scale_among(factor: Tensor, scalers: list[GradScaler], reads: bool) -> float | None:
    """Return the value of ``factor`` if it is the scale of one of these scalers, else None."""
    for scaler in scalers:
        if factor is getattr(scaler, "_scale", None):
            # A scale of one changes nothing.
            return scaler.get_scale() if scaler.get_scale() != 1.0 else None
    if factor.is_complex() or factor.is_meta or not (reads or factor.device.type == "cpu"):
        return None
    try:
        number = float(factor)
    except RuntimeError:
        # Under modes that see all operations (counters, fake tensors), a number cannot be read.
        return None
    # Scalers keep float32 tensors; Python numbers become float64 or int64.
    is_candidate = factor.dtype == torch.float32 or number >= SMALLEST_NUMBER
    if not is_candidate or number == 1.0:
        return None
    return number if any(scaler.get_scale() == number for scaler in scalers) else None


class _Scalers:
    """The scalers of this process."""

    def __init__(self) -> None:
        self._found: list[weakref.ref[GradScaler]] = []
        self._classes: list[type[GradScaler]] = []
        self._num_references = -1

    def in_use(self) -> list[GradScaler]:
        """Return the enabled scalers.

        Cost: a search of all objects of the process, if a scaler may have been created or deleted.
        """
        # Objects hold references to their class, classes to their bases: the counts show changes.
        scalers = [found() for found in self._found]
        is_known = sum(map(sys.getrefcount, self._classes)) == self._num_references
        if not is_known or any(scaler is None for scaler in scalers):
            self._classes = classes = _with_subclasses(GradScaler)
            # Check types: `isinstance` would make lazy proxies import their modules.
            scalers = [
                found for found in gc.get_referrers(*classes) if issubclass(type(found), GradScaler)
            ]
            self._found = [weakref.ref(scaler) for scaler in scalers if scaler is not None]
            self._num_references = sum(map(sys.getrefcount, classes))
        return [scaler for scaler in scalers if scaler is not None and scaler.is_enabled()]


_SCALERS = _Scalers()


def _with_subclasses(cls: type[GradScaler]) -> list[type[GradScaler]]:
    children: list[type[GradScaler]] = cls.__subclasses__()
    return [cls, *(one for child in children for one in _with_subclasses(child))]
