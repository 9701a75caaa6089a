"""The forms in which a step takes its loss."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from compopt._checks import check_loss
from compopt._typing import PLAYERS
from compopt.game import Game

Loss: TypeAlias = Tensor | Game | list[Tensor] | tuple[Tensor, Tensor]
LossOrClosure: TypeAlias = Loss | Callable[[], Loss]


class Terms(NamedTuple):
    """What a step takes besides its loss, each a scalar or None; see :class:`~compopt.Game`."""

    min_penalty: Tensor | None = None
    max_penalty: Tensor | None = None
    curvature_loss: Tensor | None = None


_PAIR_REFUSED = (
    "With a loss for each player the game is general-sum and its linear system is not symmetric, "
    "so that the conjugate gradient method does not apply: use `solver=GMRES()`. A term that only "
    "one player sees can be passed as `min_penalty` or `max_penalty`; micro-batches as a list."
)


def as_game(
    closure: LossOrClosure,
    terms: Terms,
    device: torch.device,
    *,
    allows_pair: bool = False,
    allows_curvature: bool = False,
) -> Game:
    """Return the game that ``closure`` and further terms stand for.

    Args:
        closure: a loss, a pair (min, max) of losses, a :class:`~compopt.Game`, a list of
            micro-batch losses, or a function that returns one of these; it is called with gradients
            enabled.
        terms: given beside it.
        device: of the players.
        allows_pair: whether each player may have a loss of its own.
        allows_curvature: whether a loss may stand in for second derivatives.

    Raises:
        TypeError, ValueError: if it stands for none, naming what to pass instead.
    """
    loss = closure
    if callable(loss) and not isinstance(loss, Tensor):
        with torch.enable_grad():
            loss = loss()
    if isinstance(loss, list):
        loss = _mean_loss(loss, device)
    game = _of_loss(loss, device)
    check_loss("loss", game.loss, device)
    if game.max_loss is not None:
        if not allows_pair:
            raise TypeError(
                "`loss` must be one zero-sum loss, got a tuple of 2, one for each player. "
                + _PAIR_REFUSED
            )
        check_loss("max_loss", game.max_loss, device)
    for name, value in terms._asdict().items():
        if value is None:
            continue
        if getattr(game, name) is not None:
            raise ValueError(f"`{name}` is given in the `Game` and as an argument.")
        game = replace(game, **{name: value})
    if game.curvature_loss is not None and not allows_curvature:
        raise ValueError("`curvature_loss` is for CGD, ACGD, CMD and ACMD, which solve with it.")
    if game.curvature_loss is not None and game.max_loss is not None:
        raise ValueError("`curvature_loss` is for zero-sum games; got a loss for each player.")
    return game


def _of_loss(loss: object, device: torch.device) -> Game:
    if isinstance(loss, Game):
        return loss
    if not isinstance(loss, tuple):
        return Game(check_loss("loss", loss, device))
    if len(loss) != len(PLAYERS):
        raise TypeError(f"`loss` must be one loss or a pair (min, max), got {len(loss)} of them.")
    first, second = loss
    return Game(check_loss("loss", first, device), max_loss=check_loss("max_loss", second, device))


def _mean_loss(losses: list[Tensor], device: torch.device) -> Tensor:
    if not losses:
        raise ValueError("`loss` must have at least one micro-batch, got an empty list.")
    with torch.enable_grad():
        scalars = [check_loss("loss", loss, device).reshape(()) for loss in losses]
        return torch.stack(scalars).mean()
