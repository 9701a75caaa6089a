"""The operator of a competitive step."""

import torch
from torch import Tensor

from compopt._typing import Player, opponent
from compopt._workspace import Workspace
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
        scale: [size of ``player``] S, the square roots of its step sizes.
        opponent_step_sizes: [size of the opponent] >= 0.
        workspace: where solvers get their vectors from; one of its own if None.

    References:
        Schäfer and Anandkumar (2019), Section 2. https://arxiv.org/abs/1905.12103
    """

    def __init__(
        self,
        mixed: MixedHessian,
        player: Player,
        scale: Tensor,
        opponent_step_sizes: Tensor,
        workspace: Workspace | None = None,
    ) -> None:
        layout, inner = mixed.layout(player), mixed.layout(opponent(player))
        super().__init__(layout.numel, inner.numel, layout.dtype, layout.device, inner.dtype)
        self.mixed = mixed
        self.player = player
        self.scale = scale
        self.opponent_step_sizes = opponent_step_sizes
        self.workspace = Workspace() if workspace is None else workspace

    def new_vector(self, name: str) -> Tensor:
        """Return a vector [size] of the workspace."""
        return self.workspace.vector(self.mixed.layout(self.player), self.player, name)

    def new_inner(self, name: str) -> Tensor:
        """Return a vector [inner_size] of the workspace."""
        other = opponent(self.player)
        return self.workspace.vector(self.mixed.layout(other), other, name)

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes that share the products act alike."""
        return self.mixed.agree(flags)

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over whole vectors."""
        return self.mixed.total(partials)

    def factor(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``S D @ inner``. One mixed product."""
        return self._watch(inner, self.mixed.hvp(self.player, inner, out, scale=self.scale))

    def add_factor(self, vector: Tensor, inner: Tensor, out: Tensor) -> Tensor:
        """Write ``vector + S D @ inner`` to ``out``, as it is gathered. One mixed product."""
        return self.mixed.hvp_plus(self.player, inner, vector, out, self.scale)

    def reaction(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H D^T S @ vector``. One mixed product, scaled as it is gathered."""
        return self._adjoint(vector, out, self.opponent_step_sizes)

    def adjoint(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``D^T S @ vector``. One mixed product."""
        return self._adjoint(vector, out, None)

    def weigh(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ inner``."""
        return torch.mul(self.opponent_step_sizes, inner, out=out)

    def _adjoint(self, vector: Tensor, out: Tensor | None, scale: Tensor | None) -> Tensor:
        other, room = opponent(self.player), self.new_vector("scaled")
        product = self.mixed.hvp(other, vector, out, scale, weight=self.scale, room=room)
        return self._watch(vector, product)
