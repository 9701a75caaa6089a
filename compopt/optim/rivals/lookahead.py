"""Optimizers that look one step of the opponent ahead."""

from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from compopt._checks import check_positive
from compopt._typing import OPPONENT, PLAYERS, LearningRates, Params, Player
from compopt.derivatives import Derivatives
from compopt.optim.rivals.base import Evaluation, FieldOptions, Move, SecondOrderOptimizer
from compopt.optim.settings import learning_rate


class _Options(FieldOptions, total=False):
    """Keywords of the optimizers in this module."""

    interaction: float | None


class _OpponentAware(SecondOrderOptimizer):
    """Base of the optimizers that adjust the field for the opponent's next step."""

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        *,
        interaction: float | None = None,
        **options: Unpack[FieldOptions],
    ) -> None:
        self._own = {"interaction": interaction}
        super().__init__(min_params, max_params, lr, **options)

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        if group["interaction"] is not None:
            check_positive("interaction", group["interaction"])

    def _expected_step(self, player: Player, vector: Tensor) -> Tensor:
        """Multiply ``vector`` in place by the step sizes that the opponent expects."""
        for where, group, _ in self._vectors_of(player).segments:
            expected = group["interaction"]
            vector[where].mul_(learning_rate(group) if expected is None else expected)
        return vector

    def _anticipation(self, field: Derivatives[Player]) -> dict[Player, Tensor]:
        """Return ``H_o @ (expected step sizes * xi)``."""
        return field.interaction(
            {player: self._expected_step(player, field.grads[player].clone()) for player in PLAYERS}
        )


class LCGD(_OpponentAware):
    r"""Linearized competitive gradient descent, known as LookAhead as well.

    Each player differentiates its loss where the opponent's next gradient step leads:

    .. math:: w^+ = w - \eta (I - \eta H_o) \xi

    the first two terms of the Neumann series of CGD's inverse.

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: step size.
        interaction: step size that the *opponent* expects for the parameters of a group; their
            learning rate if None.
        weight_decay: decoupled.
        max_grad_norm: applied to the field before its products.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: one evaluation of the loss, one backward pass with a graph, and one through that graph for
    each player. In a general-sum game one more backward pass with a graph.

    References:
        Schäfer and Anandkumar (2019), Section 2. https://arxiv.org/abs/1905.12103
        Letcher et al. (2019), Stable opponent shaping. https://arxiv.org/abs/1811.08469
    """

    def _moves(self, evaluate: Evaluation) -> dict[Player, Move]:
        field = evaluate()
        return {
            player: Move(self._scaled(player, product.sub_(field.grads[player])))
            for player, product in self._anticipation(field).items()
        }


class LOLA(_OpponentAware):
    r"""Learning with opponent-learning awareness: shape the opponent's next step.

    Each player differentiates its loss after the opponent's next gradient step, including how its
    own move changes that step:

    .. math:: w^+ = w - \eta \bigl( \xi - \eta H_o \xi - \eta \chi \bigr), \qquad
              \chi_i = \sum_{j \ne i} D_{ij} L_j \, \nabla_j L_i

    The original form has chi alone; ``anticipate`` adds the middle term. In zero-sum games both
    terms are equal, so that the original form is :class:`LCGD`.

    Args:
        min_params: see :class:`LCGD`, as for all arguments but one.
        max_params: the second player's.
        lr: step size.
        interaction: step size that the *opponent* expects.
        anticipate: whether to keep the middle term.
        weight_decay: decoupled.
        max_grad_norm: applied to the field before its products.
        process_group: the processes that share each step.

    Cost: one evaluation of the loss, one backward pass with a graph, and one through that graph for
    each player, two with ``anticipate``. In a general-sum game one more backward pass with a
    graph.

    References:
        Foerster et al. (2018). https://arxiv.org/abs/1709.04326
        Letcher et al. (2019), for the form with both terms. https://arxiv.org/abs/1811.08469
    """

    _options = (*_OpponentAware._options, "anticipate")

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        *,
        anticipate: bool = False,
        **options: Unpack[_Options],
    ) -> None:
        self.anticipate = bool(anticipate)
        super().__init__(min_params, max_params, lr, **options)

    def _moves(self, evaluate: Evaluation) -> dict[Player, Move]:
        field = evaluate()
        anticipation = self._anticipation(field) if self.anticipate else {}
        result = {}
        for player in PLAYERS:
            other = OPPONENT[player]
            wish = self._expected_step(other, field.cross_gradient(player, other))
            direction = field.product(other, player, {other: wish}).sub_(field.grads[player])
            if self.anticipate:
                direction.add_(anticipation[player])
            result[player] = Move(self._scaled(player, direction))
        return result
