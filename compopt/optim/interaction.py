"""Moves whose interaction counts with another step size than the move itself."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from compopt.optim.groups import Segment, learning_rate


def interacts(param_groups: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether the players' interaction counts at all.

    Raises:
        ValueError: if it does for some groups and not for others.
    """
    counts = {group["interaction"] != 0 for group in param_groups}
    if len(counts) > 1:
        raise ValueError(
            "`interaction` must be 0 in all groups of both players or in none. Zero everywhere is "
            "the step without interaction; for a weak one in some groups, give them a small value."
        )
    return counts == {True}


def scale_to_learning_rate(segments: Iterable[Segment], *vectors: Tensor) -> None:
    """Scale vectors [size of the player] in place, from the strength to the learning rate."""
    for where, group, _ in segments:
        if group["interaction"]:
            factor = learning_rate(group) / group["interaction"]
            for vector in vectors:
                vector[where].mul_(factor)


def scaled_to_strength(segments: Iterable[Segment], delta: Tensor) -> Tensor:
    """Return a move as it was before :func:`scale_to_learning_rate`; ``delta`` if that is the same.

    A learning rate of zero leaves no move to scale: zeros then.
    """
    result = delta
    for where, group, _ in segments:
        if group["interaction"]:
            result = delta.clone() if result is delta else result
            rate = learning_rate(group)
            if not isinstance(rate, Tensor):
                # Not copied from the host, which would wait for the device.
                rate = delta.new_full((), rate)
            result[where].mul_(torch.where(rate > 0, group["interaction"] / rate, 0))
    return result
