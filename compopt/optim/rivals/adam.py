"""Extragradient and optimistic methods with Adam's directions."""

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Unpack

from compopt._checks import check_decay_rate, check_non_negative
from compopt._typing import PLAYERS, LearningRates, Params, Player
from compopt.optim.rivals.base import Evaluation, FieldOptimizer, FieldOptions, Move
from compopt.optim.settings import learning_rate


class Moments(NamedTuple):
    """Adam's running averages [size of the player] of the gradient and of its square."""

    exp_avg: Tensor
    exp_avg_sq: Tensor


class AdamFieldOptimizer(FieldOptimizer):
    """Base of the optimizers that step along Adam's direction instead of the gradient."""

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        *,
        betas: tuple[float, float] = (0.5, 0.9),
        eps: float = 1e-8,
        **options: Unpack[FieldOptions],
    ) -> None:
        self._own = {"betas": betas, "eps": eps}
        super().__init__(min_params, max_params, lr, **options)

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        betas = group["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2:
            raise TypeError(f"`betas` must be a pair of decay rates, got {betas!r}.")
        for index, beta in enumerate(betas):
            check_decay_rate(f"betas[{index}]", beta)
        check_non_negative("eps", group["eps"])

    def _state_keys(self, player: Player) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _moments(self, player: Player) -> Moments:
        return Moments(self._stored(player, "exp_avg"), self._stored(player, "exp_avg_sq"))

    def _direction(
        self, player: Player, moments: Moments, grad: Tensor, *, per_step: int = 1, nth: int = 1
    ) -> Tensor:
        """Update ``moments`` with ``grad``; return Adam's step, with sign and learning rate.

        Args:
            player: the player.
            moments: updated in place.
            grad: [size of the player] the gradient.
            per_step: the number of gradients in a step.
            nth: the index of this gradient in the step, from 1.
        """
        move = torch.empty_like(grad)
        for where, group, num_steps in self._vectors_of(player).segments:
            beta1, beta2 = group["betas"]
            count = per_step * num_steps + nth
            average, squares, piece = (v[where] for v in (*moments, grad))
            average.lerp_(piece, 1 - beta1)
            squares.mul_(beta2).addcmul_(piece, piece, value=1 - beta2)
            torch.sqrt(squares, out=move[where])
            move[where].div_((1 - beta2**count) ** 0.5).add_(group["eps"])
            torch.div(average, move[where], out=move[where])
            move[where].mul_(learning_rate(group) / -(1 - beta1**count))
        return move


class ExtraAdam(AdamFieldOptimizer):
    r"""Extragradient with Adam's directions.

    Adam's averages are updated at both half steps. The t-th half step has the direction

    .. math:: d_t = \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}

    .. math::
        w' &= w - \eta d_{2k+1}(\xi(w)) \\
        w^+ &= w - \eta d_{2k+2}(\xi(w'))

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: step size of both half steps.
        betas: decay rates of the averages of the gradient and of its square.
        eps: added to the root of the second average, after the bias correction.
        weight_decay: decoupled, of the second half step.
        max_grad_norm: applied at both points.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Note:
        The published settings for CIFAR-10 are lr = (5e-5, 5e-4) with the default ``betas`` and an
        average of the generator's weights with decay 0.9999
        (:func:`~compopt.optim.rivals.averaged`).

    Cost: two evaluations of the loss and two backward passes. ``step`` needs a closure. Memory: two
    vectors per player are kept.

    References:
        Gidel et al. (2019), Algorithm 4. https://arxiv.org/abs/1802.10551
    """

    needs_closure: ClassVar[bool] = True

    def _moves(self, evaluate: Evaluation) -> dict[Player, Move]:
        moments = {player: self._moments(player) for player in PLAYERS}
        ahead = {
            player: self._direction(player, moments[player], grad, per_step=2, nth=1)
            for player, grad in evaluate().grads.items()
        }
        return {
            player: Move(
                self._direction(player, moments[player], grad, per_step=2, nth=2),
                moments[player]._asdict(),
            )
            for player, grad in evaluate(ahead).grads.items()
        }


class OptimisticAdam(AdamFieldOptimizer):
    r"""Optimistic descent-ascent with Adam's directions.

    .. math:: w_{t+1} = w_t - 2 \eta d_t + \eta d_{t-1}, \qquad
              d_t = \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}, \quad d_0 = 0

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: step size.
        betas: decay rates of the averages of the gradient and of its square.
        eps: added to the root of the second average, after the bias correction.
        weight_decay: decoupled.
        max_grad_norm: see :class:`~compopt.CGD`.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: one evaluation of the loss and one backward pass. Memory: three vectors per player are
    kept.

    References:
        Daskalakis, Ilyas, Syrgkanis and Zeng (2018), Algorithm 1.
        https://arxiv.org/abs/1711.00141
    """

    def _state_keys(self, player: Player) -> tuple[str, ...]:
        return (*super()._state_keys(player), "past_move")

    def _moves(self, evaluate: Evaluation) -> dict[Player, Move]:
        result = {}
        for player, grad in evaluate().grads.items():
            moments = self._moments(player)
            move = self._direction(player, moments, grad)
            state = {**moments._asdict(), "past_move": move}
            delta = self._stored(player, "past_move").neg_().add_(move, alpha=2)
            result[player] = Move(delta, state)
        return result
