"""The gradient of one player that moves by itself."""

from collections.abc import Sequence

from torch import Tensor

from compopt._flat import FlatLayout
from compopt._typing import Player
from compopt.distributed import Placement
from compopt.game import Game, add_penalty, check_takes_part, loss_gradients
from compopt.optim.loss import Terms


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
