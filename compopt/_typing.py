"""Type aliases shared by the package."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from torch import Tensor

Player: TypeAlias = Literal["min", "max"]
"""The minimising or the maximising player of a zero-sum game."""

PLAYERS: tuple[Player, Player] = ("min", "max")

K = TypeVar("K", bound=Hashable)
"""Type of the players' names: ``"min"`` and ``"max"``, or numbers."""

Params: TypeAlias = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]]
"""What ``torch.optim`` accepts: tensors, named tensors, or group dictionaries."""

LearningRates: TypeAlias = float | Tensor | Sequence[float | Tensor]
"""One learning rate, or one for each player."""

OPPONENT: Mapping[Player, Player] = {"min": "max", "max": "min"}
"""The other player."""
