"""A game as one step sees it: losses, penalties, and who wants what."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Generic

from torch import Tensor

from compopt._typing import K, Player


@dataclass(frozen=True)
class Objective(Generic[K]):
    """A loss, and the players whose objective it is.

    Attributes:
        name: for messages.
        loss: scalar with a graph.
        signs: by player, 1 for one that lowers the loss, -1 for one that raises it.
    """

    name: str
    loss: Tensor
    signs: Mapping[K, int]


class AnyGame(Generic[K]):
    """What a step needs to know of a game, whatever its players are called."""

    curvature_loss: Tensor | None = None
    """None, or a loss whose mixed second derivatives stand for those of the one loss."""

    def objectives(self) -> Sequence[Objective[K]]:
        """Return the losses; of each player one is the objective."""
        raise NotImplementedError

    def penalties(self) -> dict[K, Tensor]:
        """Return the penalties that there are, by player."""
        raise NotImplementedError

    def of(self, player: K) -> "OwnGame[K]":
        """Return the game as ``player`` sees it that moves alone."""
        own = next(objective for objective in self.objectives() if player in objective.signs)
        objective = Objective(own.name, own.loss, {player: own.signs[player]})
        return OwnGame(objective, self.penalties().get(player))

    def terms(self) -> dict[str, Tensor | None]:
        """Return losses, penalties and what else is given, by name."""
        losses = {objective.name: objective.loss for objective in self.objectives()}
        penalties = {f"{player}_penalty": term for player, term in self.penalties().items()}
        return {**losses, **penalties}

    def detached_losses(self) -> tuple[Tensor, ...]:
        """Return the losses without graphs."""
        return tuple(objective.loss.detach() for objective in self.objectives())


@dataclass(frozen=True)
class Game(AnyGame[Player]):
    """A loss, or a loss for each player, with further terms.

    Attributes:
        loss: scalar; the min player lowers it, the max player raises it.
        min_penalty: scalar that the min player also minimises, or None.
        max_penalty: scalar that the max player also *minimises*, or None.
        max_loss: None in a zero-sum game. In a general-sum game the scalar that the max player
            *minimises*, and ``loss`` is the min player's alone.
        curvature_loss: None, or a loss whose mixed second derivatives stand for those of ``loss``,
            such as that of a part of the batch.

    The penalties are differentiated once and never enter the mixed second derivatives, so a term
    that itself contains gradients (a gradient penalty) costs no third derivative. A term that
    couples the players belongs in ``loss``.
    """

    loss: Tensor
    min_penalty: Tensor | None = None
    max_penalty: Tensor | None = None
    max_loss: Tensor | None = None
    curvature_loss: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Game":
        """Return the game with ``function`` applied to each of its terms."""
        others = (self.min_penalty, self.max_penalty, self.max_loss, self.curvature_loss)
        return Game(function(self.loss), *(p if p is None else function(p) for p in others))

    def terms(self) -> dict[str, Tensor | None]:
        """Return the fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def objectives(self) -> Sequence[Objective[Player]]:
        """Return the one loss of both players, or one for each."""
        if self.max_loss is None:
            return [Objective("loss", self.loss, {"min": 1, "max": -1})]
        return [
            Objective("loss", self.loss, {"min": 1}),
            Objective("max_loss", self.max_loss, {"max": 1}),
        ]

    def penalties(self) -> dict[Player, Tensor]:
        """Return the penalties that there are, by player."""
        given: dict[Player, Tensor | None] = {"min": self.min_penalty, "max": self.max_penalty}
        return {player: penalty for player, penalty in given.items() if penalty is not None}


@dataclass(frozen=True)
class ManyPlayers(AnyGame[int]):
    """A loss for each of any number of players, and penalties.

    Attributes:
        losses: scalars, each lowered by its player.
        own_terms: per player, None or a scalar that it also minimises.
    """

    losses: Sequence[Tensor]
    own_terms: Sequence[Tensor | None] = ()

    def objectives(self) -> Sequence[Objective[int]]:
        """Return the losses."""
        return [Objective(f"losses[{i}]", loss, {i: 1}) for i, loss in enumerate(self.losses)]

    def penalties(self) -> dict[int, Tensor]:
        """Return the penalties that there are, by player."""
        return {i: term for i, term in enumerate(self.own_terms) if term is not None}


@dataclass(frozen=True)
class OwnGame(AnyGame[K]):
    """The loss of one player, and its penalty.

    Attributes:
        objective: of the player.
        penalty: None or a scalar that it also minimises.
    """

    objective: Objective[K]
    penalty: Tensor | None = None

    def objectives(self) -> Sequence[Objective[K]]:
        """Return the loss."""
        return [self.objective]

    def penalties(self) -> dict[K, Tensor]:
        """Return the penalty, if there is one."""
        return {player: self.penalty for player in self.objective.signs if self.penalty is not None}
