"""The joint operator of a competitive step of any number of players."""

from collections.abc import Mapping
from typing import Generic

import torch
from torch import Tensor

from compopt.field import GradientField, K
from compopt.operators.base import LinearOperator


class PolymatrixOperator(LinearOperator, Generic[K]):
    """``I + S H_o S`` on all players' vectors, joined in order.

    ``H_o`` has the blocks ``D_ij L_i`` for ``i != j``, ``S`` the square roots of the step sizes. It
    is unsymmetric.

    Args:
        field: products with blocks of second derivatives.
        step_sizes: by player, [size of the player] >= 0.

    Cost: a product takes one backward pass per player.
    """

    def __init__(self, field: GradientField[K], step_sizes: Mapping[K, Tensor]) -> None:
        self.field = field
        self.sizes = [field.layout(player).numel for player in field.players]
        self.scale = self.join({player: size.sqrt() for player, size in step_sizes.items()})
        super().__init__(len(self.scale), self.scale.dtype, self.scale.device)

    def join(self, vectors: Mapping[K, Tensor]) -> Tensor:
        """Return the players' vectors as one."""
        return torch.cat([vectors[player] for player in self.field.players])

    def split(self, vector: Tensor) -> dict[K, Tensor]:
        """Return the players' parts of a joined vector, as views."""
        return dict(zip(self.field.players, torch.split(vector, self.sizes), strict=True))

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``vector + S H_o S @ vector``."""
        products = self.field.interaction(self.split(self.scale * vector))
        return self.join(products).mul_(self.scale).add_(vector)
