"""The operator of a competitive step."""

import torch
from torch import Tensor

from compopt._typing import Player, opponent
from compopt.game import MixedHessian
from compopt.operators.base import GramOperator


class CompetitiveOperator(GramOperator):
    """``I + N N^T`` with ``N = S D S'``: what one player solves for in a zero-sum game.

    ``D`` is the mixed block of the loss with the solved player's rows, ``S`` and ``S'`` are the
    square roots of the two players' step sizes (diagonal). The identity comes from the players'
    own costs of moving, the Gram matrix from the opponent's reaction; being an identity plus a
    Gram matrix, the operator is symmetric positive definite for any step sizes.

    Args:
        mixed: products with the mixed block.
        player: the player whose move is solved for.
        scale: [size of ``player``] the square roots of its step sizes.
        opponent_scale: the same of its opponent.

    References:
        Schäfer and Anandkumar (2019), Section 2. https://arxiv.org/abs/1905.12103
    """

    def __init__(
        self, mixed: MixedHessian, player: Player, scale: Tensor, opponent_scale: Tensor
    ) -> None:
        layout = mixed.layout(player)
        super().__init__(
            layout.numel, mixed.size(opponent(player)), dtype=layout.dtype, device=layout.device
        )
        self.mixed = mixed
        self.player = player
        self.scale = scale
        self.opponent_scale = opponent_scale
        # Scaled arguments of the products. Allocating vectors of millions of entries anew for
        # each product would cost more than scaling them.
        self._scaled = torch.empty(self.size, dtype=self.dtype, device=self.device)
        self._opponent_scaled = torch.empty(
            self.inner_size, dtype=mixed.layout(opponent(player)).dtype, device=self.device
        )

    def factor(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``S D S' @ inner``. One mixed product."""
        scaled = torch.mul(inner, self.opponent_scale, out=self._opponent_scaled)
        return self.mixed.hvp(self.player, scaled, out, scale=self.scale)

    def adjoint(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``S' D^T S @ vector``. One mixed product."""
        scaled = torch.mul(vector, self.scale, out=self._scaled)
        return self.mixed.hvp(opponent(self.player), scaled, out, scale=self.opponent_scale)
