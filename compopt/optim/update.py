"""One competitive step: the page to read against the paper."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compopt._typing import Player, opponent
from compopt.game import GameGradients
from compopt.operators import CompetitiveOperator
from compopt.solvers import Solution, Solver


@dataclass(frozen=True)
class Update:
    """Increments of both players, applied by addition.

    Attributes:
        delta: per player, [size of the player].
        solution: of the linear system.
        solved: the player whose move was solved for; the other replied to it.
    """

    delta: dict[Player, Tensor]
    solution: Solution
    solved: Player


def competitive_update(
    gradients: GameGradients,
    scale_min: Tensor,
    scale_max: Tensor,
    solver: Solver,
    *,
    player: Player = "min",
    previous_delta: Tensor | None = None,
) -> Update:
    """Return the Nash equilibrium of the local bilinear game with quadratic costs of moving.

    With step sizes H = S^2 (diagonal, S = ``scale``), gradients g of the players' own objectives
    and the mixed block D of the loss f, the moves of the zero-sum game solve

        dx = -H_x (g_x + D dy),     dy = -H_y (g_y - D^T dx).

    In the scaled moves z = -S^{-1} d, with b = S g and N = S_x D S_y,

        z_x = b_x - N z_y,          z_y = b_y + N^T z_x,

    so one player (here x) solves ``(I + N N^T) z_x = b_x - N b_y`` and the other replies. Solving
    for y, the same two lines hold for -z_y and z_x, with -b_y and b_x and the transposed N.

    Args:
        gradients: of the game.
        scale_min: [size of the min player] square roots of its step sizes, >= 0.
        scale_max: the same of the max player.
        solver: of the linear system.
        player: whose move is solved for. An exact solve gives the same step for either.
        previous_delta: [size of ``player``] a move to start the solver from, such as the last
            one, or None. It is scaled by the present step sizes.

    Returns:
        The increments of both players.

    Cost: ``1 + 2 k`` mixed products for ``k`` conjugate gradient iterations; ``2 + 2 k`` from
    ``previous_delta``.

    References:
        Schäfer and Anandkumar (2019), Section 2. https://arxiv.org/abs/1905.12103
        Schäfer, Zheng and Anandkumar (2020), for diagonal step sizes.
        https://arxiv.org/abs/1910.05852
    """
    other = opponent(player)
    scale = {"min": scale_min, "max": scale_max}
    grad = {"min": gradients.grad_min, "max": gradients.grad_max}
    # The unknown is z of the min player, or -z of the max player, whose objective is -f.
    sign = 1 if player == "min" else -1
    operator = CompetitiveOperator(gradients.mixed, player, scale[player], scale[other])
    x0 = None
    if previous_delta is not None:
        # A zero step size leaves no move to scale.
        x0 = torch.where(scale[player] > 0, previous_delta / scale[player] * -sign, 0)
    solution = solver.solve(
        operator,
        rhs=(scale[player] * grad[player]).mul_(sign),
        x0=x0,
        coupled_rhs=scale[other] * grad[other],
        overwrite_rhs=True,
    )
    if solution.coupled_value is None:
        raise TypeError(f"The solver {solver!r} must return the coupled half of its solution.")
    # The solver's vectors are ours: they become the increments in place.
    return Update(
        delta={
            player: solution.value.mul_(scale[player]).mul_(-sign),
            other: solution.coupled_value.mul_(scale[other]).neg_(),
        },
        solution=solution,
        solved=player,
    )
