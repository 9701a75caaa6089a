"""The operator of a competitive step of two players."""

import torch
from torch import Tensor

from compopt._typing import Player, opponent
from compopt._workspace import Workspace
from compopt.derivatives import Derivatives
from compopt.operators.base import CoupledOperator


class TwoPlayerOperator(CoupledOperator):
    """``I - S D_12 f H D_21 g S``: what one player solves for.

    ``f`` is the solved player's objective and ``g`` the opponent's, ``S`` the square roots of the
    solved player's step sizes, ``H`` the opponent's step sizes (both diagonal). The identity comes
    from the player's own cost of moving, the rest from the opponent's reaction.

    In a zero-sum game ``g = -f``, and with ``F = S D_12 f`` the operator is ``I + F H F^T``:
    symmetric, with eigenvalues of at least 1 for any step sizes. In a general-sum game it is
    unsymmetric, and singular for isolated step sizes.

    With the sign s that the solved player's objective has in the loss that is differentiated, the
    factors are ``F = s S D_12 f`` and ``G = -s D_21 g S``. In a zero-sum game both are then
    products with derivatives of the one loss, as they come out of a backward pass.

    Args:
        derivatives: products with blocks of second derivatives.
        player: the player whose move is solved for.
        scale: [size of ``player``] S, the square roots of its step sizes.
        opponent_step_sizes: [size of the opponent] H, >= 0.
        workspace: where solvers get their vectors from; one of its own if None.

    References:
        Schäfer and Anandkumar (2019), Section 2 and eq. (4). https://arxiv.org/abs/1905.12103
    """

    def __init__(
        self,
        derivatives: Derivatives[Player],
        player: Player,
        scale: Tensor,
        opponent_step_sizes: Tensor,
        workspace: Workspace | None = None,
    ) -> None:
        self.other = opponent(player)
        layout, inner = derivatives.layouts[player], derivatives.layouts[self.other]
        super().__init__(layout.numel, inner.numel, layout.dtype, layout.device, inner.dtype)
        self.is_positive_definite = derivatives.is_zero_sum
        self.derivatives = derivatives
        self.player = player
        self.scale = scale
        self.opponent_step_sizes = opponent_step_sizes
        self.workspace = Workspace() if workspace is None else workspace
        self._sign = derivatives.signs[player]

    def new_vector(self, name: str) -> Tensor:
        """Return a vector [size] of the workspace."""
        return self.workspace.vector(self.derivatives.layouts[self.player], self.player, name)

    def new_inner(self, name: str) -> Tensor:
        """Return a vector [inner_size] of the workspace."""
        return self.workspace.vector(self.derivatives.layouts[self.other], self.other, name)

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes that share the products act alike."""
        return self.derivatives.placement.agree(flags)

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over whole vectors."""
        return self.derivatives.placement.total(partials)

    def factor(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``F @ inner``. One product."""
        product = self.derivatives.product(
            self.player,
            self.player,
            {self.other: inner},
            factor=self._sign,
            scale=self.scale,
            out=out,
        )
        return self._watch(inner, product)

    def add_factor(self, vector: Tensor, inner: Tensor, out: Tensor) -> Tensor:
        """Write ``vector + F @ inner`` to ``out``, as it is gathered. One product."""
        return self.derivatives.add_product(
            self.player,
            self.player,
            {self.other: inner},
            vector,
            out,
            factor=self._sign,
            scale=self.scale,
        )

    def response(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``G @ vector``. One product."""
        return self._response(vector, out, None)

    def reaction(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ G @ vector``. One product, scaled as it is gathered."""
        return self._response(vector, out, self.opponent_step_sizes)

    def weigh(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return ``H @ inner``."""
        return torch.mul(self.opponent_step_sizes, inner, out=out)

    def _response(self, vector: Tensor, out: Tensor | None, scale: Tensor | None) -> Tensor:
        product = self.derivatives.product(
            self.other,
            self.other,
            {self.player: vector},
            factor=-self._sign,
            weight=self.scale,
            scale=scale,
            out=out,
            scratch=self.new_vector("scaled"),
        )
        return self._watch(vector, product)
