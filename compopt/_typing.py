"""Type aliases shared by the package."""

from collections.abc import Hashable, Iterable
from typing import Any, Literal, TypeAlias, TypeVar

from torch import Tensor

Player: TypeAlias = Literal["min", "max"]
"""The minimising or the maximising player of a zero-sum game."""

PLAYERS: tuple[Player, Player] = ("min", "max")

K = TypeVar("K", bound=Hashable)
"""What players are called: ``"min"`` and ``"max"``, or their numbers."""

Params: TypeAlias = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""What ``torch.optim`` accepts: tensors, named tensors, or group dictionaries."""


def opponent(player: Player) -> Player:
    """Return the other player."""
    return "max" if player == "min" else "min"
