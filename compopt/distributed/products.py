"""Products with second derivatives over the data of all processes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from compopt._flat import FlatLayout
from compopt._typing import Player
from compopt.distributed.buckets import OverlappedSum
from compopt.distributed.collectives import Collectives
from compopt.field import GradientField
from compopt.game import MixedHessian
from compopt.kernels import partial_dot


class ReplicatedHessian(MixedHessian):
    """The mean over processes of their mixed blocks. Each half product is one all-reduce."""

    def __init__(
        self,
        grads: Mapping[Player, Sequence[Tensor | None]],
        params: Mapping[Player, Sequence[Tensor]],
        layouts: Mapping[Player, FlatLayout],
        scale: float,
        collectives: Collectives,
        bucket_bytes: int,
    ) -> None:
        super().__init__(grads, params, layouts, scale)
        self._collectives = collectives
        self._bucket_bytes = bucket_bytes

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
        out = self._sum(player, vector, out, scale, weight, room)
        return out.mul_(self._factor())

    def hvp_plus(
        self, player: Player, vector: Tensor, base: Tensor, out: Tensor, scale: Tensor
    ) -> Tensor:
        """As :meth:`~compopt.game.MixedHessian.hvp_plus`, over all data."""
        self._sum(player, vector, out, scale)
        torch.add(base, out, alpha=self._factor(), out=out)
        return partial_dot(base, out)

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes act alike."""
        return self._collectives.agree(flags)

    def _factor(self) -> float:
        return 1 / (self._collectives.size * self._scale)

    def _sum(
        self,
        player: Player,
        vector: Tensor,
        out: Tensor | None,
        scale: Tensor | None,
        weight: Tensor | None = None,
        room: Tensor | None = None,
    ) -> Tensor:
        layout = self._layouts[player]
        if out is None:
            out = torch.empty(layout.numel, dtype=layout.dtype, device=layout.device)
        with OverlappedSum(
            self._collectives,
            self._params[player],
            layout.sizes,
            out,
            self._bucket_bytes,
            f"mixed product {self.num_products + 1}, for the {player} player",
            scale=scale,
        ) as running:
            products = self._differentiate(player, vector, weight, room)
        running.finish(products)
        return out


class ReplicatedField(GradientField[Player]):
    """The mean over processes of their gradient fields, for the solve of a general-sum step."""

    def __init__(self, local: GradientField[Player], collectives: Collectives) -> None:
        self._local = local
        self._collectives = collectives
        self.grads = local.grads
        self.is_zero_sum = local.is_zero_sum
        self.num_products = 0

    @property
    def players(self) -> tuple[Player, ...]:
        """The players in order."""
        return self._local.players

    def layout(self, player: Player) -> FlatLayout:
        """Return the flat layout of ``player``'s parameters."""
        return self._local.layout(player)

    def product(
        self,
        objective: Player,
        rows: Player,
        vectors: Mapping[Player, Tensor],
        out: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Return the product as the local field does, over all data. One all-reduce."""
        product = self._local.product(objective, rows, vectors, out, scale)
        self.num_products += 1
        phase = f"product {self.num_products}, for the {rows} player"
        self._collectives.sum_(product, phase).wait()
        return product.mul_(1 / self._collectives.size)

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes act alike."""
        return self._collectives.agree(flags)
