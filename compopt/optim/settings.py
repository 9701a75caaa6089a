"""How a step reads the hyperparameters of groups."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compopt.optim.vectors import Segment

LARGEST_ROUNDING = 1e-6
"""Largest rounding error of a learning rate that a schedule takes down to zero."""


def learning_rate(group: dict[str, Any]) -> float | Tensor:
    """Return the group's learning rate, at least 0: schedules may end below it by rounding."""
    lr: float | Tensor = group["lr"]
    return lr.clamp(min=0) if isinstance(lr, Tensor) else max(lr, 0.0)


def without_rounding(lr: Any) -> Any:
    """Return a learning rate for a check: 0 if it is negative only by rounding."""
    is_read = isinstance(lr, float)
    if isinstance(lr, Tensor):
        is_read = lr.device.type == "cpu" and lr.dim() == 0
    return 0.0 if is_read and -LARGEST_ROUNDING <= lr < 0 else lr


def interaction_strength(group: dict[str, Any]) -> float | Tensor:
    """Return the step size of the group's interaction terms.

    It is the learning rate if ``interaction`` is None or 0. With 0, nothing is solved and this is
    the step size of the move itself.
    """
    return group["interaction"] or learning_rate(group)


class Settings(NamedTuple):
    """What a step does, according to the hyperparameters of all groups.

    Attributes:
        interacts: whether the step uses the interaction of the players.
        is_rescaled: whether some group has a separate step size for it.
        clips: whether some group's gradient is clipped.
        has_mirrors: whether some group's coordinates are not Euclidean.
    """

    interacts: bool
    is_rescaled: bool
    clips: bool
    has_mirrors: bool

    @classmethod
    def of(cls, param_groups: Iterable[Mapping[str, Any]]) -> "Settings":
        """Return the settings of these groups.

        Raises:
            ValueError: if ``interaction`` is 0 in some groups and not in others.
        """
        does, does_not, is_rescaled, clips, has_mirrors = False, False, False, False, False
        for group in param_groups:
            strength = group["interaction"]
            does, does_not = does or strength != 0, does_not or strength == 0
            is_rescaled = is_rescaled or bool(strength)
            clips = clips or group["max_grad_norm"] is not None
            has_mirrors = has_mirrors or group["mirror"] != "euclidean"
        if does and does_not:
            raise ValueError(
                "`interaction` must be 0 in all groups of both players or in none. Zero everywhere "
                "is the step without interaction; for a weak one in some groups, give them a small "
                "value."
            )
        return cls(does, is_rescaled, clips, has_mirrors)


def scale_to_learning_rate(segments: Iterable[Segment], *vectors: Tensor) -> None:
    """Scale vectors [size of the player] in place, from ``interaction`` to the learning rate."""
    for where, group, _ in segments:
        if group["interaction"]:
            factor = learning_rate(group) / group["interaction"]
            for vector in vectors:
                vector[where].mul_(factor)


def scaled_to_strength(segments: Iterable[Segment], delta: Tensor) -> Tensor:
    """Return a move as it was before :func:`scale_to_learning_rate`; ``delta`` if that is the same.

    Returns zeros where the learning rate is zero.
    """
    result = delta
    for where, group, _ in segments:
        if group["interaction"]:
            result = delta.clone() if result is delta else result
            rate = learning_rate(group)
            if not isinstance(rate, Tensor):
                # Filled on the device: a copy from the host would wait for it.
                rate = delta.new_full((), rate)
            result[where].mul_(torch.where(rate > 0, group["interaction"] / rate, 0))
    return result
