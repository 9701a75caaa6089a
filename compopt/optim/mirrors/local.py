"""A game seen in the local coordinates of its players."""

import dataclasses
from collections.abc import Mapping, Sequence

from torch import Tensor

from compopt._flat import FlatLayout
from compopt._typing import PLAYERS, Player, opponent
from compopt.field import GeneralGradients, GradientField
from compopt.game import GameGradients, MixedHessian
from compopt.optim.mirrors.chart import Chart


class PlayerCharts:
    """The charts of a player's parameters, as maps of its flat vectors [size of the player].

    Args:
        layout: of the parameters.
        charts: one per parameter, None where its coordinates are Euclidean.
    """

    def __init__(self, layout: FlatLayout, charts: Sequence[Chart | None]) -> None:
        self._layout = layout
        self._charts = [(index, chart) for index, chart in enumerate(charts) if chart is not None]

    def push(self, local: Tensor) -> Tensor:
        """Return the move that ``local`` stands for; ``local`` itself if all is Euclidean."""
        return self._mapped("push", local)

    def pull(self, gradient: Tensor) -> Tensor:
        """Return ``gradient`` in local coordinates; itself if all is Euclidean."""
        return self._mapped("pull", gradient)

    def magnitude(self, gradient: Tensor) -> Tensor:
        """Return what adaptive step sizes average the square of."""
        return self._mapped("magnitude", gradient)

    def _mapped(self, method: str, vector: Tensor) -> Tensor:
        if not self._charts:
            return vector
        result = vector.clone()
        views, targets = self._layout.views(vector), self._layout.views(result)
        for index, chart in self._charts:
            targets[index].copy_(getattr(chart, method)(views[index]))
        return result


class LocalMixedHessian(MixedHessian):
    """``S_x^T D_xy f S_y`` and its transpose: the mixed block in local coordinates."""

    def __init__(self, mixed: MixedHessian, charts: Mapping[Player, PlayerCharts]) -> None:
        # The same graph, seen otherwise.
        vars(self).update(vars(mixed))
        self._charts = charts

    def _differentiate(
        self,
        player: Player,
        vector: Tensor,
        weight: Tensor | None = None,
        room: Tensor | None = None,
    ) -> Sequence[Tensor | None]:
        vector = vector if weight is None else vector * weight
        products = super()._differentiate(player, self._charts[opponent(player)].push(vector))
        layout = self._layouts[player]
        return layout.views(self._charts[player].pull(layout.flatten(products)))


class LocalField(GradientField[Player]):
    """The field of a general-sum game in local coordinates, for products of two players."""

    def __init__(self, field: GradientField[Player], charts: Mapping[Player, PlayerCharts]) -> None:
        vars(self).update(vars(field))
        self._charts = charts

    def product(
        self,
        objective: Player,
        rows: Player,
        vectors: Mapping[Player, Tensor],
        out: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Return the product of :meth:`GradientField.product` in local coordinates."""
        pushed = {player: self._charts[player].push(vector) for player, vector in vectors.items()}
        product = self._charts[rows].pull(super().product(objective, rows, pushed))
        product = product if scale is None else product.mul_(scale)
        return product if out is None else out.copy_(product)


def in_local_coordinates(
    gradients: GameGradients | GeneralGradients, charts: Mapping[Player, PlayerCharts]
) -> GameGradients | GeneralGradients:
    """Return the first derivatives and the products of a game in local coordinates."""
    grad_min, grad_max = (
        charts[player].pull(grad)
        for player, grad in zip(PLAYERS, (gradients.grad_min, gradients.grad_max), strict=True)
    )
    if isinstance(gradients, GeneralGradients):
        field = LocalField(gradients.mixed, charts)
        return dataclasses.replace(gradients, grad_min=grad_min, grad_max=grad_max, mixed=field)
    mixed = LocalMixedHessian(gradients.mixed, charts)
    return dataclasses.replace(gradients, grad_min=grad_min, grad_max=grad_max, mixed=mixed)
