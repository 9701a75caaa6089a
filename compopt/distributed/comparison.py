"""Whether processes that are about to share a step would take the same one."""

import torch

from compopt.distributed.collectives import Collectives
from compopt.distributed.meeting import Act, Notice, Terms, difference, pack, unpack

DESCRIPTION_BYTES = 2**13
"""Length of the message in which processes tell each other what differs."""


def compare(
    collectives: Collectives, act: Act, count: int, terms: Terms, device: torch.device
) -> None:
    """Tell the others what this process is about to do on which terms, and learn theirs.

    Args:
        collectives: of the process group.
        act: see :meth:`~compopt.distributed.Placement.meet`.
        count: likewise.
        terms: of this process.
        device: likewise.

    Raises:
        CollectiveError: see :meth:`~compopt.distributed.collectives.Collectives.meet`.
        ValueError: on all processes, naming what differs and another process where it does.

    Cost: one gathering of 40 bytes. If the setups differ, another one of what they are.
    """
    own = Notice(act, count, (terms.setup, terms.parameters, terms.state))
    notices = collectives.meet(own, device)
    if all(notice == own for notice in notices):
        return
    # All processes have the same notices, and find the same kind of difference.
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
            "ranks; what a rank decides by itself, as a scheduler does from its own loss, has to "
            "be averaged or broadcast first."
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
    """Return the first rank whose number is not that of ``rank``."""
    return next(other for other, number in enumerate(numbers) if number != numbers[rank])
