"""Tools for tests in which one rank is not like the others."""

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shared_game import SharedGame, Way, part_of
from shared_scenarios import tensors_of
from torch import Tensor
from torch import distributed as dist

ODD = 1
"""The rank that differs."""

SHORT_S = 3.0
"""Time-out of groups in which a rank is missing."""


def is_odd() -> bool:
    return dist.get_rank() == ODD


def short_group() -> dist.ProcessGroup:
    return dist.new_group(timeout=datetime.timedelta(seconds=SHORT_S))


def attempt(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call raises, and how long it takes to."""
    started = time.monotonic()
    error = None
    try:
        call()
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as caught:
        error = caught
    return {
        "kind": type(error).__name__,
        "text": str(error),
        "seconds": time.monotonic() - started,
    }


@dataclass
class Run:
    """A game and its optimizer on this rank."""

    game: SharedGame
    optimizer: Any
    num_steps: int = 0

    @classmethod
    def of(cls, placement: Any = None, **kwargs: Any) -> "Run":
        game = SharedGame()
        placement = dist.group.WORLD if placement is None else placement
        return cls(game, Way(kwargs=kwargs).build(game, placement))

    def loss(self) -> Tensor:
        self.num_steps += 1
        return self.game.loss(self.num_steps - 1, part_of(dist.group.WORLD))

    def step(self) -> None:
        self.optimizer.step(self.loss())

    def tensors(self) -> list[Tensor]:
        return tensors_of(self.game, self.optimizer)

    def set_all(self, key: str, value: Any) -> None:
        for group in self.optimizer.param_groups:
            group[key] = value
