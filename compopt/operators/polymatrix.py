"""The joint operator of a competitive step of any number of players."""

from collections.abc import Mapping
from typing import Generic

import torch
from torch import Tensor

from compopt._typing import K
from compopt.derivatives import Derivatives, split_players
from compopt.operators.base import LinearOperator


class PolymatrixOperator(LinearOperator, Generic[K]):
    """``I + S H_o S`` on all players' vectors, joined in order.

    ``H_o`` has the blocks ``D_ij L_i`` for ``i != j``, ``S`` the square roots of the step sizes. It
    is unsymmetric.

    Args:
        derivatives: products with blocks of second derivatives.
        scales: by player, [size of the player] >= 0, the square roots of its step sizes.

    Attributes:
        watched: None, or a list that takes, for the first product, whether what was multiplied and
            what came out of the blocks have an entry other than zero; 0-dim.

    Cost: a product takes one backward pass per player.
    """

    def __init__(self, derivatives: Derivatives[K], scales: Mapping[K, Tensor]) -> None:
        self.derivatives = derivatives
        self.watched: list[tuple[Tensor, Tensor]] | None = None
        self.scale = self.join(scales)
        super().__init__(len(self.scale), self.scale.dtype, self.scale.device)

    def join(self, vectors: Mapping[K, Tensor]) -> Tensor:
        """Return the players' vectors as one."""
        return torch.cat([vectors[player] for player in self.derivatives.layouts])

    def split(self, vector: Tensor) -> dict[K, Tensor]:
        """Return the players' parts of a joined vector, as views."""
        return split_players(vector, self.derivatives.layouts)

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes that share the products act alike."""
        return self.derivatives.placement.agree(flags)

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over whole vectors."""
        return self.derivatives.placement.total(partials)

    def matvec(self, vector: Tensor) -> Tensor:
        """Return ``vector + S H_o S @ vector``."""
        products = self.derivatives.interaction(self.split(self.scale * vector))
        product = self.join(products).mul_(self.scale)
        if self.watched is not None and not self.watched:
            self.watched.append((vector.any(), product.any()))
        return product.add_(vector)
