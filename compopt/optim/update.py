"""One competitive step: the page to read against the paper."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compopt._profiling import Range, marked
from compopt._typing import Player, opponent
from compopt._workspace import Workspace
from compopt.field import GeneralGradients
from compopt.game import GameGradients
from compopt.operators import CompetitiveOperator, GeneralSumOperator
from compopt.solvers import Solution, Solver


@dataclass(frozen=True)
class Update:
    """Increments of both players, applied by addition.

    Attributes:
        delta: per player, [size of the player]. In the workspace, so good until the next step.
        solution: of the linear system.
        solved: the player whose move was solved for; the other replied to it.
    """

    delta: dict[Player, Tensor]
    solution: Solution
    solved: Player


@marked(Range.SOLVE)
def competitive_update(
    gradients: GameGradients | GeneralGradients,
    step_sizes_min: Tensor,
    step_sizes_max: Tensor,
    solver: Solver,
    *,
    player: Player = "min",
    previous_delta: Tensor | None = None,
    workspace: Workspace | None = None,
) -> Update:
    """Return the Nash equilibrium of the local bilinear game with quadratic costs of moving.

    With diagonal step sizes H = S^2, gradients g of the players' own objectives and the mixed block
    D of the loss f, the moves of the zero-sum game solve

        dx = -H_x (g_x + D dy),     dy = -H_y (g_y - D^T dx).

    In ``u = -S_x^{-1} dx`` and ``w = -dy``, with F = S_x D, that is

        u = S_x g_x - F w,          w = H_y (g_y + F^T u),

    so one player (here x) solves ``(I + F H_y F^T) u = S_x g_x - F H_y g_y`` and the other replies.
    Solving for y, the same two lines hold with the players exchanged, D transposed, and -g_y for
    g_x, in ``u = +S_y^{-1} dy`` and ``w = -dx``.

    In a general-sum game, whose max player minimises g, the moves solve

        dx = -H_x (g_x + D_xy f dy),     dy = -H_y (g_y + D_yx g dx),

    and in ``u = -S_x^{-1} dx`` and ``w = -dy`` the second line is ``w = H_y (g_y - D_yx g S_x u)``,
    whichever player is solved for. The reduced operator is not symmetric then.

    Args:
        gradients: of the game. Not modified.
        step_sizes_min: [size of the min player] >= 0.
        step_sizes_max: [size of the max player] >= 0.
        solver: of the linear system.
        player: whose move is solved for. An exact solve gives the same step for either.
        previous_delta: [size of ``player``] a move to start the solver from, such as the last
            one, or None. It is scaled by the present step sizes.
        workspace: where large vectors come from; a new one if None.

    Returns:
        The increments of both players.

    Cost: ``2 k`` or ``1 + 2 k`` mixed products for ``k`` conjugate gradient iterations (see
    :class:`~compopt.ConjugateGradient`); one more from ``previous_delta``.

    References:
        Schäfer and Anandkumar (2019), Section 2. https://arxiv.org/abs/1905.12103
        Schäfer, Zheng and Anandkumar (2020), for diagonal step sizes.
        https://arxiv.org/abs/1910.05852
    """
    other = opponent(player)
    step_sizes = {"min": step_sizes_min, "max": step_sizes_max}
    grad = {"min": gradients.grad_min, "max": gradients.grad_max}
    sizes = step_sizes[player], step_sizes[other]
    operator: CompetitiveOperator | GeneralSumOperator
    if isinstance(gradients, GeneralGradients):
        sign = 1
        operator = GeneralSumOperator(gradients.mixed, player, *sizes, workspace)
    else:
        # The max player's objective is -f.
        sign = 1 if player == "min" else -1
        operator = CompetitiveOperator(gradients.mixed, player, *sizes, workspace)
    scale = operator.scale
    x0 = None
    if previous_delta is not None:
        # A zero step size leaves no move to scale.
        x0 = torch.where(scale > 0, previous_delta / scale * -sign, 0)
    solution = solver.solve(
        operator,
        rhs=torch.mul(scale, grad[player], out=operator.new_vector("rhs")).mul_(sign),
        x0=x0,
        coupled_rhs=grad[other],
        overwrite_rhs=True,
    )
    if solution.coupled_value is None:
        raise TypeError(f"The solver {solver!r} must return the coupled half of its solution.")
    # The solver's vectors are ours: they become the increments in place.
    delta = {
        player: solution.value.mul_(scale).mul_(-sign),
        other: solution.coupled_value.neg_(),
    }
    return Update(delta=delta, solution=solution, solved=player)
