"""Local coordinates of a player whose parameters have mirror maps."""

from collections.abc import Sequence

from torch import Tensor

from compopt._flat import FlatLayout
from compopt.optim.mirrors.chart import Chart


class PlayerCharts:
    """The charts of a player's parameters, as maps of its flat vectors [size of the player].

    Args:
        layout: the layout of the parameters.
        charts: one per parameter, None if its coordinates are Euclidean.
    """

    def __init__(self, layout: FlatLayout, charts: Sequence[Chart | None]) -> None:
        self._layout = layout
        self._charts = [(index, chart) for index, chart in enumerate(charts) if chart is not None]

    def push(self, local: Tensor) -> Tensor:
        """Return the move with coordinates ``local``; ``local`` itself if all is Euclidean."""
        return self._mapped("push", local)

    def pull(self, gradient: Tensor) -> Tensor:
        """Return ``gradient`` in local coordinates; ``gradient`` itself if all is Euclidean."""
        return self._mapped("pull", gradient)

    def magnitude(self, gradient: Tensor) -> Tensor:
        """Return the values whose squares adaptive step sizes average."""
        return self._mapped("magnitude", gradient)

    def _mapped(self, method: str, vector: Tensor) -> Tensor:
        if not self._charts:
            return vector
        result = vector.clone()
        views, targets = self._layout.views(vector), self._layout.views(result)
        for index, chart in self._charts:
            targets[index].copy_(getattr(chart, method)(views[index]))
        return result
