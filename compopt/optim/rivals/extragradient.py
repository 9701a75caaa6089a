"""Extragradient methods: the gradient from a point ahead."""

from typing import ClassVar

from compopt._typing import PLAYERS, Player
from compopt.optim.rivals.base import Evaluation, FieldOptimizer, Move


class ExtraGradient(FieldOptimizer):
    r"""Extragradient method.

    With the field :math:`\xi` of the players' own gradients,

    .. math::
        w' &= w - \eta \xi(w) \\
        w^+ &= w - \eta \xi(w')

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: step size of both half steps.
        weight_decay: decoupled, of the second half step.
        max_grad_norm: applied at both points.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: two evaluations of the loss and two backward passes. ``step`` needs a closure.

    References:
        Korpelevich (1976), The extragradient method for finding saddle points.
    """

    needs_closure: ClassVar[bool] = True

    def _moves(self, evaluate: Evaluation) -> dict[Player, Move]:
        here = evaluate().grads
        ahead = {player: self._scaled(player, grad.neg_()) for player, grad in here.items()}
        there = evaluate(ahead).grads
        return {player: Move(self._scaled(player, grad.neg_())) for player, grad in there.items()}


class PastExtraGradient(FieldOptimizer):
    r"""Extragradient that looks ahead with the gradient of the previous point ahead.

    .. math::
        w'_t &= w_t - \eta \xi(w'_{t-1}) \\
        w_{t+1} &= w_t - \eta \xi(w'_t)

    with :math:`\xi(w'_{-1}) = 0`, so that the first step is plain descent-ascent. At constant step
    sizes the points ahead are the iterates of :class:`OGDA`.

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: step size of both half steps.
        weight_decay: decoupled.
        max_grad_norm: see :class:`~compopt.CGD`.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: one evaluation of the loss, at the point ahead, and one backward pass. ``step`` needs a
    closure. Memory: one vector per player is kept.

    References:
        Popov (1980), A modification of the Arrow-Hurwicz method for search of saddle points.
        Gidel et al. (2019), Section 3.2. https://arxiv.org/abs/1802.10551
    """

    needs_closure: ClassVar[bool] = True

    def _state_keys(self, player: Player) -> tuple[str, ...]:
        return ("past_grad",)

    def _moves(self, evaluate: Evaluation) -> dict[Player, Move]:
        ahead = {p: self._scaled(p, self._stored(p, "past_grad").neg_()) for p in PLAYERS}
        there = evaluate(ahead).grads
        return {
            player: Move(self._scaled(player, grad.neg()), {"past_grad": grad})
            for player, grad in there.items()
        }
