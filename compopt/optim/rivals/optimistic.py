"""Optimistic gradient descent-ascent."""

from compopt._typing import Player
from compopt.optim.rivals.base import Evaluation, FieldOptimizer, Move


class OGDA(FieldOptimizer):
    r"""Optimistic gradient descent-ascent (optimistic mirror descent without a mirror).

    .. math:: w_{t+1} = w_t - 2 \eta \xi(w_t) + \eta \xi(w_{t-1})

    with zero in place of the gradient before the first. The current step size multiplies both
    gradients.

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: step size.
        weight_decay: decoupled.
        max_grad_norm: see :class:`~compopt.CGD`.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: one evaluation of the loss and one backward pass. Memory: one vector per player is kept.

    References:
        Daskalakis, Ilyas, Syrgkanis and Zeng (2018), Training GANs with optimism.
        https://arxiv.org/abs/1711.00141
    """

    def _state_keys(self, player: Player) -> tuple[str, ...]:
        return ("past_grad",)

    def _moves(self, evaluate: Evaluation) -> dict[Player, Move]:
        return {
            player: Move(
                self._scaled(player, self._stored(player, "past_grad").sub_(grad, alpha=2)),
                {"past_grad": grad},
            )
            for player, grad in evaluate().grads.items()
        }
