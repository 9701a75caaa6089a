"""The gradient of one player that moves by itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compopt._checks import check_takes_part
from compopt._flat import FlatLayout
from compopt._typing import Player
from compopt.distributed import Placement
from compopt.game import Game, add_penalty, loss_gradients
from compopt.optim.loss import Terms
from compopt.optim.report import why_not_taken
from compopt.solvers import Status


def check_terms(player: Player, terms: Terms) -> None:
    """Raise if a term is not of ``player``, or is for products."""
    other = "max_penalty" if player == "min" else "min_penalty"
    for name in (other, "curvature_loss"):
        if getattr(terms, name) is not None:
            raise ValueError(
                f"`{name}` has no part in a step of the {player} player alone. Leave it out."
            )


def own_gradient(
    game: Game, player: Player, params: Sequence[Tensor], placement: Placement
) -> Tensor:
    """Return the gradient [size of the player] of the player's own objective, penalty included.

    Args:
        game: its loss need not depend on the other player.
        player: who moves.
        params: of ``player``.
        placement: of the player's vectors. Processes average their gradients.

    Raises:
        TypeError, ValueError: as :func:`~compopt.game.differentiate`.

    Cost: one backward pass by the player's parameters, one of its penalty; one all-reduce of the
    gradient.
    """
    is_min = player == "min"
    has_own_loss = is_min or game.max_loss is None
    name, loss = ("loss", game.loss) if has_own_loss else ("max_loss", game.max_loss)
    assert loss is not None
    penalty = game.min_penalty if is_min else game.max_penalty
    grads = loss_gradients(name, loss, params, retain_graph=penalty is not None)
    check_takes_part(player, grads, penalty)
    layout = FlatLayout.of(params)
    flat = layout.flatten(grads)
    if not is_min and game.max_loss is None:
        flat.neg_()
    if penalty is not None:
        add_penalty(f"{player}_penalty", penalty, params, layout, flat)
    flat = placement.mean(flat)
    return placement.part(params, layout.views(flat)) if placement.is_sharded else flat


@dataclass(frozen=True)
class OutcomeAlone:
    """Whether a step of one player is finite, on the device until it is read.

    Attributes:
        player: who moves.
        norm: of its gradient, as clipped.
        has_squares: whether the gradient is finite, and its squares where they are needed.
        taken: whether the move is finite as well.
    """

    player: Player
    norm: Tensor
    has_squares: Tensor
    taken: Tensor

    def failure(self) -> str:
        """Return why the step was not taken, and what to try."""
        return why_not_taken(
            {f"the gradient of the {self.player} player": self.norm},
            Status.CONVERGED,
            has_squares=bool(self.has_squares),
            moves=f"The move of the {self.player} player is",
        )


def judge_alone(
    player: Player, grad: Tensor, delta: Tensor, placement: Placement, *, squares_gradients: bool
) -> OutcomeAlone:
    """Return whether a step of ``player`` is finite.

    Args:
        player: who moves.
        grad: [size of the player], as clipped.
        delta: [size of the player] its move.
        placement: of the player's vectors.
        squares_gradients: whether step sizes are made of squares, which must be finite then.
    """
    norm, length = (
        placement.norms({player: vector}, of_any_size=True)[player] for vector in (grad, delta)
    )
    has_squares = torch.isfinite(norm.to(grad.dtype).square() if squares_gradients else norm)
    return OutcomeAlone(player, norm, has_squares, has_squares & torch.isfinite(length))
