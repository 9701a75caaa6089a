"""The operator of a competitive step in a general-sum game."""

import torch
from torch import Tensor

from compopt._typing import Player, opponent
from compopt._workspace import Workspace
from compopt.field import GradientField
from compopt.operators.base import CoupledOperator


class GeneralSumOperator(CoupledOperator):
    """``I - S D_12 f H D_21 g S``: what one player solves for when each has a loss of its own.

    ``f`` is the solved player's loss and ``g`` the opponent's, ``S`` the square roots of the solved
    player's step sizes, ``H`` the opponent's step sizes (both diagonal). It is unsymmetric, and
    singular for isolated step sizes. With ``g = -f`` it is the operator of the zero-sum game.

    Args:
        field: products with blocks of second derivatives.
        player: the player whose move is solved for.
        scale: [size of ``player``] S, the square roots of its step sizes.
        opponent_step_sizes: [size of the opponent] >= 0.
        workspace: where solvers get their vectors from; one of its own if None.

    References:
        Schäfer and Anandkumar (2019), eq. (4). https://arxiv.org/abs/1905.12103
    """

    def __init__(
        self,
        field: GradientField[Player],
        player: Player,
        scale: Tensor,
        opponent_step_sizes: Tensor,
        workspace: Workspace | None = None,
    ) -> None:
        self.other = opponent(player)
        layout, inner = field.layout(player), field.layout(self.other)
        super().__init__(layout.numel, inner.numel, layout.dtype, layout.device, inner.dtype)
        self.field = field
        self.player = player
        self.scale = scale
        self.opponent_step_sizes = opponent_step_sizes
        self.workspace = Workspace() if workspace is None else workspace

    def new_vector(self, name: str) -> Tensor:
        """Return a vector [size] of the workspace."""
        return self.workspace.vector(self.field.layout(self.player), self.player, name)

    def new_inner(self, name: str) -> Tensor:
        """Return a vector [inner_size] of the workspace."""
        return self.workspace.vector(self.field.layout(self.other), self.other, name)

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes that share the products act alike."""
        return self.field.agree(flags)

    def factor(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``S D_12 f @ inner``. One product."""
        product = self.field.product(self.player, self.player, {self.other: inner}, out, self.scale)
        return self._watch(inner, product)

    def weigh(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ inner``."""
        return torch.mul(self.opponent_step_sizes, inner, out=out)

    def reaction(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``-H D_21 g S @ vector``. One product."""
        scaled = torch.mul(vector, self.scale, out=self.new_vector("scaled"))
        product = self.field.product(
            self.other, self.other, {self.player: scaled}, out, self.opponent_step_sizes
        )
        return self._watch(vector, product.neg_())
