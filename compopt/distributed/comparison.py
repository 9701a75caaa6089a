"""A check that processes are about to take the same step."""

import torch

from compopt.distributed.collectives import Collectives
from compopt.distributed.meeting import Act, Notice, Terms, difference, pack, unpack

DESCRIPTION_BYTES = 2**13
"""Length of the message in which a process describes its setup."""


def compare(
    collectives: Collectives, act: Act, count: int, terms: Terms, device: torch.device
) -> None:
    """Check that all processes are about to do the same thing with the same terms.

    Args:
        collectives: collective operations of the process group.
        act: see :meth:`~compopt.distributed.Placement.meet`.
        count: see :meth:`~compopt.distributed.Placement.meet`.
        terms: terms of this process.
        device: see :meth:`~compopt.distributed.Placement.meet`.

    Raises:
        CollectiveError: see :meth:`~compopt.distributed.collectives.Collectives.meet`.
        ValueError: on all processes, if terms differ. It names a difference and another rank.

    Cost: one all-gather of 40 bytes, and one of descriptions if the setups differ.
    """
    own = Notice(act, count, (terms.setup, terms.parameters, terms.state))
    notices = collectives.meet(own, device)
    if all(notice == own for notice in notices):
        return
    # All processes have the same notices, so all raise the same kind of error.
    setups, parameters, states = (
        [notice.values[i] for notice in notices] for i in range(len(own.values))
    )
    rank = collectives.rank
    if len(set(setups)) > 1:
        other = _other(setups, rank)
        texts = collectives.texts(pack(terms.describe(), DESCRIPTION_BYTES), device)
        what = difference(unpack(texts[rank]), unpack(texts[other]), other)
        raise ValueError(
            f"Rank {rank} and rank {other} would take different steps: {what}. Set it alike on all "
            "ranks; average or broadcast first what a rank decides on its own, such as a learning "
            "rate that follows its own loss."
        )
    if len(set(parameters)) > 1:
        raise ValueError(
            f"The parameters of rank {rank} differ from those of rank {_other(parameters, rank)}. "
            "All ranks must begin alike, to the bit: build the networks with one seed, load the "
            "same checkpoint, or call `compopt.distributed.broadcast_parameters(G, D)` before the "
            "first step."
        )
    raise ValueError(
        f"The optimizer's state on rank {rank} (moments, step counts, learning rates that are "
        f"tensors) differs from that on rank {_other(states, rank)}. Load the same checkpoint on "
        "all ranks."
    )


def _other(numbers: list[int], rank: int) -> int:
    """Return the first rank whose number differs from that of ``rank``."""
    return next(other for other, number in enumerate(numbers) if number != numbers[rank])
