"""Descent-ascent with the field adjusted by products with its Jacobian."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from compopt._checks import check_non_negative
from compopt._typing import PLAYERS, LearningRates, Params, Player
from compopt.derivatives import Derivatives
from compopt.optim.rivals.base import Evaluation, FieldOptions, Move, SecondOrderOptimizer

Vectors = dict[Player, Tensor]


class AdjustedOptions(FieldOptions, total=False):
    """Keywords of the optimizers in this module."""

    coefficient: float


class AdjustedFieldOptimizer(SecondOrderOptimizer):
    """Base of the optimizers that step along ``xi + coefficient * adjustment``."""

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        *,
        coefficient: float = 1.0,
        **options: Unpack[FieldOptions],
    ) -> None:
        self._own = {"coefficient": coefficient}
        super().__init__(min_params, max_params, lr, **options)

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        check_non_negative("coefficient", group["coefficient"])

    @abstractmethod
    def _adjustment(self, field: Derivatives[Player]) -> Vectors:
        """Return the adjustment of the field, per unit of the coefficient."""

    def _moves(self, evaluate: Evaluation) -> dict[Player, Move]:
        field = evaluate()
        adjustment = self._adjustment(field)
        result = {}
        for player in PLAYERS:
            direction = self._scaled(player, adjustment[player], "coefficient")
            direction.add_(field.grads[player]).neg_()
            result[player] = Move(self._scaled(player, direction))
        return result


class ConsensusOptimization(AdjustedFieldOptimizer):
    r"""Consensus optimization: descent-ascent, and descent on half the squared norm of the field.

    .. math:: w^+ = w - \eta (\xi + \gamma J^T \xi),
              \qquad J^T \xi = \tfrac12 \nabla |\xi|^2

    The diagonal blocks of the Jacobian J are included, so the method is attracted to stationary
    points of any kind, including maxima of the min player's loss.

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: step size.
        coefficient: gamma.
        weight_decay: decoupled.
        max_grad_norm: applied to the field before its product.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: one evaluation of the loss, one backward pass with a graph, and one through that graph.

    References:
        Mescheder, Nowozin and Geiger (2017), The numerics of GANs.
        https://arxiv.org/abs/1705.10461
    """

    def _adjustment(self, field: Derivatives[Player]) -> Vectors:
        return field.transposed(field.grads)


class SGA(AdjustedFieldOptimizer):
    r"""Symplectic gradient adjustment.

    .. math:: w^+ = w - \eta (\xi + \lambda A^T \xi), \qquad A = (J - J^T) / 2

    In a zero-sum game A is the interaction alone, and :math:`\lambda = \eta` gives :class:`LCGD`.
    With alignment, lambda takes the sign of

    .. math:: \langle \xi, J^T \xi \rangle \langle A^T \xi, J^T \xi \rangle / n + 1/10

    for n parameters, so that the adjustment leads to stable stationary points and away from
    unstable ones.

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: step size.
        coefficient: lambda.
        align: whether to choose the sign of lambda.
        weight_decay: decoupled.
        max_grad_norm: applied to the field before its products.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: one evaluation of the loss, one backward pass with a graph, and one through that graph for
    each player; one more to align. In a general-sum game one more of each kind.

    References:
        Balduzzi et al. (2018), The mechanics of n-player differentiable games, Section 3.
        https://arxiv.org/abs/1802.05642
    """

    _options = (*AdjustedFieldOptimizer._options, "align")

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        *,
        align: bool = False,
        **options: Unpack[AdjustedOptions],
    ) -> None:
        self.align = bool(align)
        super().__init__(min_params, max_params, lr, **options)

    def _adjustment(self, field: Derivatives[Player]) -> Vectors:
        adjustment = field.antisymmetric_transposed(field.grads)
        if not self.align:
            return adjustment
        descent = field.transposed(field.grads)
        size = sum(param.numel() for player in PLAYERS for param in self._params(player))
        agreement = self._dot(field.grads, descent) * self._dot(adjustment, descent) / size
        sign = torch.sign(agreement + 0.1)
        return {player: vector.mul_(sign) for player, vector in adjustment.items()}

    def _dot(self, left: Vectors, right: Vectors) -> Tensor:
        """Return the inner product over both players."""
        products = [torch.dot(left[player], right[player]).double() for player in left]
        return self._placement.total(torch.stack(products).sum())
