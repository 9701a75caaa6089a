"""Least action dynamics."""

from typing import Any

from typing_extensions import Unpack

from compopt._checks import check_decay_rate, check_non_negative
from compopt._typing import PLAYERS, LearningRates, Params, Player
from compopt.optim.rivals.base import Evaluation, FieldOptions, Move, SecondOrderOptimizer


class LEAD(SecondOrderOptimizer):
    r"""Least-action dynamics: momentum, and a reaction to the opponent's last move.

    .. math:: w_{t+1} = w_t + \beta (w_t - w_{t-1}) - \eta \xi(w_t)
              - \alpha H_o (w_t - w_{t-1})

    The differences are the optimizer's own last moves, without weight decay.

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: step size.
        momentum: beta.
        coupling: alpha.
        weight_decay: decoupled.
        max_grad_norm: see :class:`~compopt.CGD`.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: one evaluation of the loss, one backward pass with a graph, and one through that graph for
    each player. In a general-sum game one more backward pass with a graph. Memory: one vector per
    player is kept.

    References:
        Askari Hemmat et al. (2023), LEAD: min-max optimization from a physical perspective.
        https://arxiv.org/abs/2010.13846
    """

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        *,
        momentum: float = 0.0,
        coupling: float = 1e-3,
        **options: Unpack[FieldOptions],
    ) -> None:
        self._own = {"momentum": momentum, "coupling": coupling}
        super().__init__(min_params, max_params, lr, **options)

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        check_decay_rate("momentum", group["momentum"])
        check_non_negative("coupling", group["coupling"])

    def _state_keys(self, player: Player) -> tuple[str, ...]:
        return ("delta",)

    def _moves(self, evaluate: Evaluation) -> dict[Player, Move]:
        field = evaluate()
        past = {player: self._stored(player, "delta") for player in PLAYERS}
        reaction = field.interaction(past)
        result = {}
        for player, grad in field.grads.items():
            delta = self._scaled(player, past[player], "momentum")
            delta.sub_(self._scaled(player, grad))
            delta.sub_(self._scaled(player, reaction[player], "coupling"))
            result[player] = Move(delta, {"delta": delta})
        return result
