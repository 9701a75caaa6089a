"""Products with second derivatives over the data of all processes."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compopt._flat import FlatLayout
from compopt._typing import Player
from compopt.field import GradientField
from compopt.game import MixedHessian
from compopt.kernels import partial_dot

if TYPE_CHECKING:
    from compopt.distributed.replicated import Replicated


class ReplicatedHessian(MixedHessian):
    """The mean over processes of their mixed blocks. Each half product is one reduction."""

    def __init__(
        self,
        grads: Mapping[Player, Sequence[Tensor | None]],
        params: Mapping[Player, Sequence[Tensor]],
        layouts: Mapping[Player, FlatLayout],
        scale: float,
        placement: "Replicated",
    ) -> None:
        super().__init__(grads, params, layouts, scale)
        self._placement = placement

    def hvp(
        self,
        player: Player,
        vector: Tensor,
        out: Tensor | None = None,
        scale: Tensor | None = None,
        weight: Tensor | None = None,
        room: Tensor | None = None,
    ) -> Tensor:
        """Return the product as :meth:`~compopt.game.MixedHessian.hvp` does, over all data."""
        return self._sum(player, vector, out, scale, weight, room).mul_(self._factor())

    def hvp_plus(
        self, player: Player, vector: Tensor, base: Tensor, out: Tensor, scale: Tensor
    ) -> Tensor:
        """As :meth:`~compopt.game.MixedHessian.hvp_plus`, over all data."""
        self._sum(player, vector, out, scale)
        torch.add(base, out, alpha=self._factor(), out=out)
        return partial_dot(base, out)

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes act alike."""
        return self._placement.agree(flags)

    def _factor(self) -> float:
        return 1 / (self._placement.collectives.size * self._scale)

    def _sum(
        self,
        player: Player,
        vector: Tensor,
        out: Tensor | None,
        scale: Tensor | None = None,
        weight: Tensor | None = None,
        room: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of the processes' products, each of them multiplied by ``scale``."""
        layout = self.layout(player)
        if out is None:
            out = torch.empty(layout.numel, dtype=layout.dtype, device=layout.device)
        self._placement.reduce(
            partial(self._differentiate, player, vector, weight, room),
            self._params[player],
            layout.sizes,
            out,
            f"mixed product {self.num_products + 1}, for the {player} player",
            scale=scale,
        )
        return out


class ReplicatedField(GradientField[Player]):
    """The mean over processes of their gradient fields, for general-sum steps.

    Args:
        local: of this process.
        grads: the means of its gradients.
        placement: of the process group.
    """

    def __init__(
        self,
        local: GradientField[Player],
        grads: Mapping[Player, Tensor],
        placement: "Replicated",
    ) -> None:
        vars(self).update(vars(local))
        self.grads = {**grads}
        self._placement = placement

    def cross_gradient(self, objective: Player, player: Player) -> Tensor:
        """As :meth:`GradientField.cross_gradient`, over all data. One reduction."""
        return self._placement.mean(super().cross_gradient(objective, player))

    def transposed(self, vectors: Mapping[Player, Tensor]) -> dict[Player, Tensor]:
        """As :meth:`GradientField.transposed`, over all data. One reduction per player."""
        local = super().transposed(vectors)
        return {player: self._placement.mean(product) for player, product in local.items()}

    def product(
        self,
        objective: Player,
        rows: Player,
        vectors: Mapping[Player, Tensor],
        out: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Return the product of :meth:`GradientField.product`, over all data. One reduction."""
        layout = self.layout(rows)
        if out is None:
            out = torch.empty(layout.numel, dtype=layout.dtype, device=layout.device)
        self._placement.reduce(
            partial(self.differentiate, objective, rows, vectors),
            self._params[rows],
            layout.sizes,
            out,
            f"product {self.num_products + 1}, for the {rows} player",
            scale=scale,
        )
        return out.mul_(self._objectives[objective].sign / self._placement.collectives.size)

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes act alike."""
        return self._placement.agree(flags)
