"""Games: the losses and penalties of one step, and the forms in which a step accepts them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Generic, NamedTuple, TypeAlias

import torch
from torch import Tensor
from typing_extensions import TypedDict, TypeVar

from compopt._checks import check_loss, reached
from compopt._typing import PLAYERS, K, Player


@dataclass(frozen=True)
class Objective(Generic[K]):
    """A loss and the players who optimize it.

    Attributes:
        name: name for messages.
        loss: scalar with a graph.
        signs: for each player, 1 if it lowers the loss, -1 if it raises it.
    """

    name: str
    loss: Tensor
    signs: Mapping[K, int]


class AnyGame(Generic[K]):
    """Base of games, independent of the names of the players."""

    curvature_loss: Tensor | None = None
    """None, or a loss whose mixed second derivatives replace those of the one loss."""

    def objectives(self) -> Sequence[Objective[K]]:
        """Return the losses. Each player is in exactly one of them."""
        raise NotImplementedError

    def penalties(self) -> dict[K, Tensor]:
        """Return the penalties that are given, by player."""
        raise NotImplementedError

    def of(self, player: K) -> "OwnGame[K]":
        """Return the game in which only ``player`` moves."""
        own = next(objective for objective in self.objectives() if player in objective.signs)
        objective = Objective(own.name, own.loss, {player: own.signs[player]})
        return OwnGame(objective, self.penalties().get(player))

    def terms(self) -> dict[str, Tensor | None]:
        """Return losses and penalties by name."""
        losses = {objective.name: objective.loss for objective in self.objectives()}
        penalties = {f"{player}_penalty": term for player, term in self.penalties().items()}
        return {**losses, **penalties}

    def detached_losses(self) -> tuple[Tensor, ...]:
        """Return the losses without graphs."""
        return tuple(objective.loss.detach() for objective in self.objectives())


Losses: TypeAlias = Tensor | tuple[Tensor, Tensor]
"""What a step of two players returns: the one loss, or the pair (min, max) of losses."""

L_co = TypeVar("L_co", bound=Losses, covariant=True, default=Losses)
"""Which of the two a step returns; for a plain :class:`Game`, either."""


@dataclass(frozen=True)
class Game(AnyGame[Player], Generic[L_co]):
    """One zero-sum loss or a loss for each player, with further terms.

    Attributes:
        loss: scalar; the min player lowers it, the max player raises it.
        min_penalty: scalar that the min player also minimises, or None.
        max_penalty: scalar that the max player also *minimises*, or None.
        max_loss: None in a zero-sum game. In a general-sum game, the scalar that the max player
            *minimises*; ``loss`` then belongs to the min player only.
        curvature_loss: None, or a loss whose mixed second derivatives replace those of ``loss``,
            such as the loss of a part of the batch.

    The penalties are differentiated once and are left out of the mixed second derivatives. So a
    term that contains gradients (a gradient penalty) needs no third derivative. Put a term that
    couples the players into ``loss``.
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
        """Return the penalties that are given, by player."""
        given: dict[Player, Tensor | None] = {"min": self.min_penalty, "max": self.max_penalty}
        return {player: penalty for player, penalty in given.items() if penalty is not None}


@dataclass(frozen=True)
class MeanGame(Game):
    """The mean of the games of micro-batches."""


@dataclass(frozen=True)
class ManyPlayers(AnyGame[int]):
    """A loss for each of any number of players, and penalties.

    Attributes:
        losses: one scalar for each player, which lowers it.
        own_terms: for each player, None or a further scalar that it minimises.
    """

    losses: Sequence[Tensor]
    own_terms: Sequence[Tensor | None] = ()

    def objectives(self) -> Sequence[Objective[int]]:
        """Return the losses."""
        return [Objective(f"losses[{i}]", loss, {i: 1}) for i, loss in enumerate(self.losses)]

    def penalties(self) -> dict[int, Tensor]:
        """Return the penalties that are given, by player."""
        return {i: term for i, term in enumerate(self.own_terms) if term is not None}


@dataclass(frozen=True)
class OwnGame(AnyGame[K]):
    """The loss of one player, and its penalty.

    Attributes:
        objective: loss of the player.
        penalty: None or a further scalar that the player minimises.
    """

    objective: Objective[K]
    penalty: Tensor | None = None

    def objectives(self) -> Sequence[Objective[K]]:
        """Return the loss."""
        return [self.objective]

    def penalties(self) -> dict[K, Tensor]:
        """Return the penalty, if there is one."""
        return {player: self.penalty for player in self.objective.signs if self.penalty is not None}


class MicroBatches(Generic[L_co]):
    """Losses of micro-batches, which a step averages.

    Args:
        losses: for each micro-batch a loss, a pair (min, max) of losses or a
            :class:`~compopt.Game`, all of one form. Each term is averaged, so micro-batches of
            equal size give the step of the whole batch.

    Example:
        >>> import compopt, torch
        >>> x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
        >>> optimizer = compopt.CGD([x], [y])
        >>> optimizer.step(compopt.MicroBatches(part * (x @ y) for part in (1.0, 2.0)))
        tensor(1.5000)
    """

    def __init__(self, losses: Iterable[L_co | Game[L_co]]) -> None:
        if isinstance(losses, Tensor) or not isinstance(losses, Iterable):
            raise TypeError(
                f"`losses` must hold a loss for each micro-batch, got {type(losses).__name__}. "
                "Pass a single loss to the step itself; average per-sample losses, `.mean()`."
            )
        self.losses: tuple[L_co | Game[L_co], ...] = tuple(losses)


Loss: TypeAlias = L_co | Game[L_co] | MicroBatches[L_co]
LossOrClosure: TypeAlias = Loss[L_co] | Callable[[], Loss[L_co]]


class Terms(NamedTuple):
    """Arguments of a step in addition to its loss: scalars or None, see :class:`~compopt.Game`."""

    min_penalty: Tensor | None = None
    max_penalty: Tensor | None = None
    curvature_loss: Tensor | None = None


class Penalties(TypedDict, total=False):
    """Keyword arguments of a step; see :class:`~compopt.Game`."""

    min_penalty: Tensor | None
    max_penalty: Tensor | None


def check_alone(player: Player, terms: Terms) -> None:
    """Raise if a term would be ignored in a step of ``player`` alone."""
    other = "max_penalty" if player == "min" else "min_penalty"
    for name in (other, "curvature_loss"):
        if getattr(terms, name) is not None:
            raise ValueError(
                f"`{name}` does not apply to a step of the {player} player alone. Leave it out."
            )


_PAIR_REFUSED = (
    "With a loss for each player the game is general-sum and its linear system is not symmetric, "
    "so that the conjugate gradient method does not apply: use `solver=GMRES()`, the default for "
    "pairs. A term that only one player sees can be passed as `min_penalty` or `max_penalty`; "
    "micro-batches as `compopt.MicroBatches([...])`."
)
_NOT_ONE_LOSS = (
    "Write a loss for each player as a tuple, `(min_loss, max_loss)`, and micro-batches, which are "
    "averaged, as `compopt.MicroBatches([...])`."
)


def evaluated(
    closure: LossOrClosure | None, is_prepared: Callable[[], bool]
) -> LossOrClosure | None:
    """Call a closure with gradients enabled; None if it gives no loss and a step is prepared."""
    if not callable(closure) or isinstance(closure, Tensor):
        return closure
    with torch.enable_grad():
        loss = closure()
    return None if loss is None and is_prepared() else lambda: loss


def as_loss(losses: Sequence[Tensor]) -> Losses:
    """Return the loss, or the pair of losses, of a game of two players."""
    return losses[0] if len(losses) == 1 else (losses[0], losses[1])


def as_game(
    closure: LossOrClosure,
    terms: Terms,
    device: torch.device,
    *,
    allows_pair: bool = False,
    allows_curvature: bool = False,
    players: Mapping[Player, Sequence[Tensor]] | None = None,
) -> Game:
    """Convert the arguments of a step to a game.

    Args:
        closure: a loss, a pair (min, max) of losses, a :class:`~compopt.Game`,
            :class:`~compopt.MicroBatches`, or a function that returns one of these; it is called
            with gradients enabled.
        terms: further arguments of the step.
        device: device of the players.
        allows_pair: whether each player may have its own loss.
        allows_curvature: whether a ``curvature_loss`` is allowed.
        players: parameters by player, to check that all micro-batches depend on the same players;
            None to skip the check.

    Raises:
        TypeError, ValueError: if the arguments do not form a game.
    """
    loss = closure
    if callable(loss) and not isinstance(loss, Tensor):
        with torch.enable_grad():
            loss = loss()
    if isinstance(loss, MicroBatches):
        parts = [_of_loss(part, device) for part in loss.losses]
        game = _mean_game(parts, device)
        if players is not None:
            _check_alike(parts, players)
    else:
        game = _of_loss(loss, device)
    if game is loss:
        check_loss("loss", game.loss, device)
    if game.max_loss is not None:
        if not allows_pair:
            raise TypeError(
                "`loss` must be one zero-sum loss, got a tuple of 2, one for each player. "
                + _PAIR_REFUSED
            )
        if game is loss:
            check_loss("max_loss", game.max_loss, device)
    for name, value in zip(Terms._fields, terms, strict=True):
        if value is None:
            continue
        if getattr(game, name) is not None:
            raise ValueError(f"`{name}` is given in the `Game` and as an argument.")
        game = replace(game, **{name: value})
    if game.curvature_loss is not None and not allows_curvature:
        raise ValueError("`curvature_loss` is for CGD and ACGD, which solve with it.")
    if game.curvature_loss is not None and game.max_loss is not None:
        raise ValueError("`curvature_loss` is for zero-sum games; got a loss for each player.")
    return game


def _of_loss(loss: object, device: torch.device) -> Game:
    if isinstance(loss, Game):
        return loss
    if isinstance(loss, list | Iterator):
        count = f"a list of {len(loss)}" if isinstance(loss, list) else f"a {type(loss).__name__}"
        raise TypeError(
            f"`loss` must be one loss or a pair (min, max), got {count}. {_NOT_ONE_LOSS}"
        )
    if not isinstance(loss, tuple):
        return Game(check_loss("loss", loss, device))
    if len(loss) != len(PLAYERS):
        raise TypeError(
            f"`loss` must be one loss or a pair (min, max), got {len(loss)} of them. "
            + _NOT_ONE_LOSS
        )
    first, second = loss
    return Game(check_loss("loss", first, device), max_loss=check_loss("max_loss", second, device))


def _check_alike(games: Sequence[Game], players: Mapping[Player, Sequence[Tensor]]) -> None:
    """Raise if the losses of micro-batches depend on different players."""
    owners = {id(param): player for player, params in players.items() for param in params}
    found = [
        tuple(reached(term, owners) for term in (g.loss, g.max_loss) if term is not None)
        for g in games
    ]
    for index, players_of in enumerate(found):
        if players_of != found[0]:
            first, other = (
                ", ".join(" and ".join(r) or "none" for r in f) for f in (found[0], players_of)
            )
            raise ValueError(
                "`MicroBatches` must hold losses of one kind, got some that depend on different "
                f"players: the first on {first}, number {index} on {other}. Write the losses of "
                "two players as a pair, `(min_loss, max_loss)`, with the graphs of both in each."
            )


def _mean_game(games: Sequence[Game], device: torch.device) -> Game:
    """Return a game with each term averaged over ``games``."""
    if not games:
        raise ValueError("`MicroBatches` must hold at least one loss, got none.")
    parts = [game.terms() for game in games]
    terms = {name: [part[name] for part in parts] for name in parts[0]}
    means = {name: _mean_term(name, values, device) for name, values in terms.items()}
    loss = means.pop("loss")
    assert loss is not None
    return MeanGame(loss, **means)


def _mean_term(name: str, terms: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    missing = sum(term is None for term in terms)
    if name != "loss" and missing:
        if missing == len(terms):
            return None
        raise ValueError(
            f"`MicroBatches` must hold losses of one kind, got `{name}` in "
            f"{len(terms) - missing} of {len(terms)}. Give it in all of them, or beside them as an "
            "argument of the step."
        )
    with torch.enable_grad():
        return torch.stack([check_loss(name, term, device).reshape(()) for term in terms]).mean()
