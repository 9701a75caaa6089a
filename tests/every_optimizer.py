"""Every optimizer of the package, wrappers and mirror maps too, behind one interface."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from games import QuadraticGame
from optimizer_registry import OPTIMIZERS
from torch import Tensor

import compopt
from compopt import ACGD, CGD, PolymatrixCGD
from compopt.optim import rivals

BOX = ("box", -20.0, 15.0)


class PositiveGame(QuadraticGame):
    """The quadratic game in the logarithms of positive parameters."""

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        super().__init__(dtype, seed)
        for params in (self.min_params, self.max_params):
            params[:] = [param.detach().exp().requires_grad_() for param in params]

    def vector(self, player: str) -> Tensor:
        return super().vector(player).log()


@dataclass(frozen=True)
class Entry:
    """An optimizer under test.

    Attributes:
        name: of the test.
        make: builds it from ``(min_params, max_params, lr=...)``.
        cls: its class.
        game: what it plays.
        copies: whether a copy works alone.
    """

    name: str
    make: Callable[..., torch.optim.Optimizer]
    cls: type[torch.optim.Optimizer]
    game: type[QuadraticGame] = QuadraticGame
    copies: bool = True

    def start(self, lr: Any = (0.02, 0.01)) -> tuple[QuadraticGame, torch.optim.Optimizer]:
        """Return a new game and the optimizer of its players."""
        game = self.game()
        return game, self.make(game.min_params, game.max_params, lr=lr)

    def step(self, optimizer: Any, loss: Callable[[], Any]) -> Any:
        """Take a step on what ``loss`` returns, in the form that the optimizer takes it."""

        def argument() -> Any:
            value = loss()
            if not isinstance(optimizer, PolymatrixCGD):
                return value
            return [value, -value] if isinstance(value, Tensor) else [value, value]

        needs_closure = getattr(optimizer, "needs_closure", False)
        return optimizer.step(argument if needs_closure else argument())


def _polymatrix(min_params: Any, max_params: Any, **options: Any) -> PolymatrixCGD:
    return PolymatrixCGD([min_params, max_params], **options)


def _lookahead(cls: Any, *players: Any, **options: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = cls(*players, **options)
    rivals.LookaheadMinmax(optimizer, interval=3)
    return optimizer


WRAPPERS = (rivals.SimultaneousDescentAscent, rivals.AlternatingDescentAscent)
INNER = {
    "SGD": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "Adam": torch.optim.Adam,
}

EVERY = (
    *(Entry(info.name, info.cls, info.cls) for info in OPTIMIZERS),
    *(
        Entry(f"{cls.__name__}-{name}", partial(cls, optimizer=inner), cls)
        for cls in WRAPPERS
        for name, inner in INNER.items()
    ),
    Entry("PolymatrixCGD", _polymatrix, PolymatrixCGD),
    Entry("PolymatrixCGD-adaptive", partial(_polymatrix, beta=0.9), PolymatrixCGD),
    Entry("CGD-box", partial(CGD, mirror=BOX), CGD),
    Entry("CGD-nonnegative", partial(CGD, mirror="nonnegative"), CGD, PositiveGame),
    Entry("ACGD-box", partial(ACGD, mirror=(BOX, "euclidean")), ACGD),
    *(
        Entry(f"LookaheadMinmax-{cls.__name__}", partial(_lookahead, cls), cls, copies=False)
        for cls in (compopt.CGD, compopt.ACGD, rivals.OGDA, rivals.ExtraAdam)
    ),
)

# One of each base class.
KINDS = [
    entry
    for entry in EVERY
    if entry.name
    in (
        "ACGD",
        "ExtraAdam",
        "AlternatingDescentAscent-Adam",
        "PolymatrixCGD-adaptive",
        "CGD-nonnegative",
        "LookaheadMinmax-ACGD",
    )
]

each_entry = pytest.mark.parametrize("entry", EVERY, ids=lambda entry: entry.name)
"""For what every class computes or keeps itself."""
each_kind = pytest.mark.parametrize("entry", KINDS, ids=lambda entry: entry.name)
"""For what they have from their base classes."""
