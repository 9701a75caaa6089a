"""What a step writes, prepared in full before the first write."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

Advance = Literal[True] | Tensor
"""Whether a step is taken, on the device where it has not been read."""


class Commit:
    """The writes of a step, in order. :meth:`run` makes all of them or none.

    Whatever can fail (allocation, communication, checks) belongs before :meth:`run`. What is left
    are writes into memory that exists. If one of them is interrupted nevertheless, by Ctrl-C say,
    the others are made before the interrupt goes on: a step that is half taken would be worse than
    one that is taken.

    Attributes:
        vectors: new ones that it will store, by player and key of the state.
    """

    def __init__(self) -> None:
        self.vectors: dict[tuple[object, str], Tensor] = {}
        self._writes: list[tuple[Callable[[], object], Tensor | None]] = []
        self._num_done = 0
        # Which write was begun last, and the version of its target before.
        self._begun, self._version = -1, 0

    def add(self, write: Callable[[], object], target: Tensor | None = None) -> None:
        """Add a write.

        Args:
            write: one operation in place on ``target``; or, without a target, something that may
                as well be done twice.
            target: the tensor written to, or one of them.
        """
        self._writes.append((write, target))

    def copy(self, target: Tensor, value: Tensor) -> None:
        """Add a write of ``value`` to ``target``."""
        self._writes.append((partial(target.copy_, value), None))

    def run(self) -> None:
        """Make all writes."""
        try:
            self._run()
        except BaseException:
            self._run()
            raise

    # An interrupt on the way out of an `enable_grad` leaves gradients enabled.
    @torch.no_grad()
    def _run(self) -> None:
        for index in range(self._num_done, len(self._writes)):
            write, target = self._writes[index]
            if target is None:
                write()
            else:
                # Torch counts the operations in place on a tensor, so that none is made twice,
                # wherever between two lines it was interrupted.
                if self._begun != index:
                    self._version = target._version
                    self._begun = index
                if target._version == self._version:
                    write()
            self._num_done = index + 1


def stage_moves(
    commit: Commit,
    params: Sequence[Tensor],
    moves: Sequence[Tensor],
    decay: float | Tensor | None,
    advance: Advance,
) -> None:
    """Add the decay and the moves of parameters that share their hyperparameters.

    Args:
        commit: to add to.
        params: that are moved.
        moves: what is added to each, of its shape.
        decay: what parameters are multiplied by first, or None.
        advance: whether to do any of this.
    """
    params, deltas = list(params), list(moves)
    if not params:
        return
    if advance is True:
        if isinstance(decay, Tensor):
            # It may be on another device than they.
            for param in params:
                commit.add(partial(param.mul_, decay), param)
        elif decay is not None:
            commit.add(lambda: torch._foreach_mul_(params, decay), params[0])
        commit.add(lambda: torch._foreach_add_(params, deltas), params[0])
        return
    # What may have to stay as it is moves as a copy: multiplying by one and adding zero would not
    # leave every bit in place.
    for param, delta in zip(params, deltas, strict=True):
        moved = param.clone() if decay is None else param * decay
        commit.copy(param, moved.add_(delta).where(advance, param))
