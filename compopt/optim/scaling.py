"""Losses and gradients that a ``GradScaler`` has scaled."""

import gc
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
    "{then:g}. Call `optimizer.backward` anew, then `scaler.step(optimizer)`, and only then "
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
"""Smaller numbers in front of a loss are taken for weights: a look for scalers takes time."""

# What leaves a loss the multiple of a scaled one, or makes it the mean of scaled ones.
_LINEAR = (
    *("Add", "Sub", "Neg", "Div", "Mean", "Sum", "Stack", "Select"),
    *("View", "Reshape", "Unsqueeze", "Squeeze", "ToCopy", "Clone"),
)


def check_unscaled(losses: Mapping[str, Tensor | None], remedy: str) -> None:
    """Raise if a loss is the product of another with the scale of a ``GradScaler`` in use.

    Args:
        losses: scalars by name.
        remedy: what to do instead.

    Cost: a walk over the last operations of each loss. Where they multiply by a 0-dim tensor, that
    is read; a factor that could be a scale has all objects of the process looked through.
    """
    scales: set[float] | None = None
    for name, loss in losses.items():
        # What is no tensor is refused by name later.
        if not isinstance(loss, Tensor) or Place.of(loss).capturing:
            continue
        for factor in _factors(loss):
            if scales is None:
                scales = _scales_in_use()
            if factor in scales:
                raise ValueError(SCALED_BY_HAND.format(name=name, scale=factor, remedy=remedy))


def check_ready(scaler: GradScaler, optimizer: torch.optim.Optimizer) -> None:
    """Raise if ``scaler`` would leave new gradients of ``optimizer`` as they are."""
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
    # Torch has no public way to ask.
    states = getattr(scaler, "_per_optimizer_states", None)
    if states is None:
        return None
    state = states.get(id(optimizer))
    return "READY" if state is None else str(state["stage"].name)


def _factors(loss: Tensor) -> Iterator[float]:
    """Yield the numbers by which the last operations multiply, as far as scales look like them."""
    nodes = [loss.grad_fn]
    for node in nodes:
        kind = type(node).__name__
        if kind == "MulBackward0":
            for factor in (_saved(node, "_saved_other"), _saved(node, "_saved_self")):
                if factor is not None and (number := _scale_like(factor)) is not None:
                    yield number
        elif not kind.startswith(_LINEAR):
            continue
        if len(nodes) < 100:
            nodes += [following for following, _ in node.next_functions]  # type: ignore[union-attr]


def _saved(node: object, name: str) -> Tensor | None:
    try:
        value = getattr(node, name)
    except RuntimeError:
        # The graph was freed, which others report.
        return None
    return value if isinstance(value, Tensor) else None


def _scale_like(factor: Tensor) -> float | None:
    if factor.dim() or factor.requires_grad or factor.is_complex() or factor.is_meta:
        return None
    try:
        number = float(factor)
    except RuntimeError:
        # Modes that see all operations (counters, fake tensors) are not given a number's tensor.
        return None
    # Scalers keep float32 tensors; numbers come as float64 or int64.
    is_candidate = factor.dtype == torch.float32 or number >= SMALLEST_NUMBER
    return number if is_candidate and number != 1.0 else None


def _scales_in_use() -> set[float]:
    # An object refers to its class. Asking for types: proxies would import what they stand for.
    scalers = [o for o in gc.get_referrers(*_with_subclasses(GradScaler)) if _is_scaler(o)]
    return {scaler.get_scale() for scaler in scalers if scaler.is_enabled()}


def _is_scaler(found: object) -> bool:
    return issubclass(type(found), GradScaler)


def _with_subclasses(cls: type[GradScaler]) -> list[type[GradScaler]]:
    children: list[type[GradScaler]] = cls.__subclasses__()
    return [cls, *(one for child in children for one in _with_subclasses(child))]
