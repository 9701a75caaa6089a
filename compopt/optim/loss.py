"""The forms in which a step takes its loss."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from compopt._checks import check_loss
from compopt.game import Game

Loss: TypeAlias = Tensor | Game | list[Tensor]
LossOrClosure: TypeAlias = Loss | Callable[[], Loss]


def as_game(
    closure: LossOrClosure,
    min_penalty: Tensor | None,
    max_penalty: Tensor | None,
    device: torch.device,
) -> Game:
    """Return the game that ``closure`` and the penalties stand for.

    Args:
        closure: a loss, a :class:`~compopt.Game`, a list of micro-batch losses, or a function that
            returns one of these; it is called with gradients enabled.
        min_penalty: scalar, or None.
        max_penalty: scalar, or None.
        device: of the players.

    Raises:
        TypeError, ValueError: if it stands for none, naming what to pass instead.
    """
    loss = closure
    if callable(loss) and not isinstance(loss, Tensor):
        with torch.enable_grad():
            loss = loss()
    if isinstance(loss, tuple):
        raise TypeError(
            f"`loss` must be one zero-sum loss, got a tuple of {len(loss)}. With a loss for each "
            "player the game is general-sum and its linear system is not symmetric, so that the "
            "conjugate gradient method does not apply. A term that only one player sees can be "
            "passed as `min_penalty` or `max_penalty`; micro-batches as a list."
        )
    if isinstance(loss, list):
        loss = _mean_loss(loss, device)
    game = loss if isinstance(loss, Game) else Game(check_loss("loss", loss, device))
    check_loss("loss", game.loss, device)
    penalties = {"min": (game.min_penalty, min_penalty), "max": (game.max_penalty, max_penalty)}
    for player, given in penalties.items():
        if None not in given:
            raise ValueError(f"`{player}_penalty` is given in the `Game` and as an argument.")
    return Game(
        game.loss,
        game.min_penalty if min_penalty is None else min_penalty,
        game.max_penalty if max_penalty is None else max_penalty,
    )


def _mean_loss(losses: list[Tensor], device: torch.device) -> Tensor:
    if not losses:
        raise ValueError("`loss` must have at least one micro-batch, got an empty list.")
    with torch.enable_grad():
        scalars = [check_loss("loss", loss, device).reshape(()) for loss in losses]
        return torch.stack(scalars).mean()
