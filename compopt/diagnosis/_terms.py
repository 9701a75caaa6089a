"""The terms of a game, and the players that differentiate each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

from torch import Tensor

from compopt._typing import PLAYERS, Player
from compopt.derivatives import loss_gradients
from compopt.game import Game, MicroBatches


def given_terms(outcome: object) -> Iterator[tuple[str, object]]:
    """Yield names and values of the terms that a loss function returned, in any accepted form."""
    if isinstance(outcome, MicroBatches):
        for part in outcome.losses:
            yield from given_terms(part)
    elif isinstance(outcome, Game):
        yield from ((f.name, getattr(outcome, f.name)) for f in fields(outcome))
    elif isinstance(outcome, tuple) and len(outcome) == len(PLAYERS):
        yield from zip(("loss", "max_loss"), outcome, strict=True)
    else:
        yield "loss", outcome


def terms_of(game: Game) -> dict[str, Tensor]:
    """Return the terms that are tensors, by name."""
    return {name: term for name, term in given_terms(game) if isinstance(term, Tensor)}


def losses_of(game: Game) -> dict[str, Tensor]:
    """Return the terms that both players differentiate, by name."""
    return {name: term for name, term in terms_of(game).items() if len(differentiating(name)) == 2}


def differentiating(term: str) -> tuple[Player, ...]:
    """Return the players that differentiate a term with respect to their parameters."""
    only: dict[str, tuple[Player, ...]] = {"min_penalty": ("min",), "max_penalty": ("max",)}
    return only.get(term, PLAYERS)


def own_loss(game: Game, player: Player) -> str:
    """Return the name of the loss whose gradient ``player`` takes."""
    return "max_loss" if player == "max" and game.max_loss is not None else "loss"


def mixed_loss(game: Game, player: Player) -> str:
    """Return the name of the loss that gives the mixed products in ``player``'s space."""
    return "curvature_loss" if game.curvature_loss is not None else own_loss(game, player)


def mixed_losses(game: Game) -> set[str]:
    """Return the names of the losses whose mixed products are taken."""
    return {mixed_loss(game, player) for player in PLAYERS}


def gradients(
    term: str,
    loss: Tensor,
    params: Mapping[Player, Sequence[Tensor]],
    players: Sequence[Player] = PLAYERS,
    *,
    create_graph: bool = False,
) -> dict[Player, Sequence[Tensor | None]]:
    """Return the gradients of a term by the parameters of ``players``. Keeps its graph."""
    grads = iter(
        loss_gradients(
            term,
            loss,
            [param for player in players for param in params[player]],
            create_graph=create_graph,
            retain_graph=True,
        )
    )
    return {player: [next(grads) for _ in params[player]] for player in players}
