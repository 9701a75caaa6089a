"""The operator of a competitive step."""

import torch
from torch import Tensor

from compopt._typing import Player, opponent
from compopt.game import MixedHessian
from compopt.operators.base import GramOperator


class CompetitiveOperator(GramOperator):
    """``I + S D H D^T S``: what one player solves for in a zero-sum game.

    ``D`` is the mixed block of the loss with the solved player's rows, ``S`` the square roots of
    that player's step sizes, ``H`` the opponent's step sizes (both diagonal). The identity comes
    from the player's own cost of moving, the rest from the opponent's reaction; being an identity
    plus a Gram matrix, the operator is symmetric positive definite for any step sizes.

    Args:
        mixed: products with the mixed block.
        player: the player whose move is solved for.
        scale: [size of ``player``] the square roots of its step sizes.
        opponent_step_sizes: [size of the opponent].

    References:
        Schäfer and Anandkumar (2019), Section 2. https://arxiv.org/abs/1905.12103
    """

    def __init__(
        self, mixed: MixedHessian, player: Player, scale: Tensor, opponent_step_sizes: Tensor
    ) -> None:
        layout = mixed.layout(player)
        super().__init__(
            layout.numel, mixed.size(opponent(player)), dtype=layout.dtype, device=layout.device
        )
        self.mixed = mixed
        self.player = player
        self.scale = scale
        self.opponent_step_sizes = opponent_step_sizes
        # Allocating a large vector anew for each product would cost more than scaling it.
        self._scaled = torch.empty(self.size, dtype=self.dtype, device=self.device)

    def factor(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``S D @ inner``. One mixed product."""
        return self.mixed.hvp(self.player, inner, out, scale=self.scale)

    def reaction(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H D^T S @ vector``. One mixed product."""
        scaled = torch.mul(vector, self.scale, out=self._scaled)
        return self.mixed.hvp(opponent(self.player), scaled, out, scale=self.opponent_step_sizes)

    def weigh(self, inner: Tensor) -> Tensor:
        """Return ``H @ inner``."""
        return self.opponent_step_sizes * inner
