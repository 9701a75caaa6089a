"""The writes of a step, all prepared before the first is made."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

Advance = Literal[True] | Tensor
"""Whether a step is taken; a tensor on the device if it has not been read."""


class Commit:
    """The writes of a step, in order. :meth:`run` makes all of them or none.

    Anything that can fail (allocation, communication, checks) belongs before :meth:`run`, which
    only writes to existing memory. If an interrupt, such as Ctrl-C, arrives during :meth:`run`, the
    remaining writes are made before it propagates, so that no step is half taken.

    Attributes:
        vectors: new state vectors that it will store, by player and state key.
    """

    def __init__(self) -> None:
        self.vectors: dict[tuple[object, str], Tensor] = {}
        self._writes: list[tuple[Callable[[], object], Tensor | None]] = []
        self._num_done = 0
        # Index of the write that was begun last, and the version of its target before it.
        self._begun, self._version = -1, 0

    def add(self, write: Callable[[], object], target: Tensor | None = None) -> None:
        """Add a write.

        Args:
            write: one in-place operation on ``target``; or, without a target, a function that may
                safely run twice.
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

    # An interrupt at the exit of an `enable_grad` leaves gradients enabled.
    @torch.no_grad()
    def _run(self) -> None:
        for index in range(self._num_done, len(self._writes)):
            write, target = self._writes[index]
            if target is None:
                write()
            else:
                # In-place operations increase the version of a tensor. After an interrupt it shows
                # whether the write was made, so that none is made twice.
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
    """Add decay and moves of parameters with the same hyperparameters to a commit.

    Args:
        commit: the commit to add to.
        params: the parameters to move.
        moves: the increment of each parameter, of its shape.
        decay: factor by which parameters are multiplied first, or None.
        advance: whether the step is taken.
    """
    params, deltas = list(params), list(moves)
    if not params:
        return
    if advance is True:
        if isinstance(decay, Tensor):
            # The factor may be on another device than the parameters.
            for param in params:
                commit.add(partial(param.mul_, decay), param)
        elif decay is not None:
            commit.add(lambda: torch._foreach_mul_(params, decay), params[0])
        commit.add(lambda: torch._foreach_add_(params, deltas), params[0])
        return
    # Choose between the parameter and a moved copy: multiplying by one and adding zero would not
    # preserve every bit.
    for param, delta in zip(params, deltas, strict=True):
        moved = param.clone() if decay is None else param * decay
        commit.copy(param, moved.add_(delta).where(advance, param))
