"""Moves whose interaction counts with another step size than the move itself."""

from collections.abc import Iterable

import torch
from torch import Tensor

from compopt.optim.groups import Segment, learning_rate


def scale_to_learning_rate(segments: Iterable[Segment], *vectors: Tensor) -> None:
    """Scale vectors [size of the player] in place, from the strength to the learning rate."""
    for where, group, _ in segments:
        if group["interaction"] is not None:
            factor = learning_rate(group) / group["interaction"]
            for vector in vectors:
                vector[where].mul_(factor)


def scaled_to_strength(segments: Iterable[Segment], delta: Tensor) -> Tensor:
    """Return a move as it was before :func:`scale_to_learning_rate`; ``delta`` if that is the same.

    A learning rate of zero leaves no move to scale: zeros then.
    """
    result = delta
    for where, group, _ in segments:
        if group["interaction"] is not None:
            result = delta.clone() if result is delta else result
            rate = torch.as_tensor(learning_rate(group), dtype=delta.dtype, device=delta.device)
            result[where].mul_(torch.where(rate > 0, group["interaction"] / rate, 0))
    return result
