"""One competitive step: the page to read against the paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from compopt._profiling import Range, marked
from compopt._typing import Player, opponent
from compopt._workspace import Workspace
from compopt.field import GeneralGradients
from compopt.game import GameGradients
from compopt.operators import CompetitiveOperator, GeneralSumOperator
from compopt.optim.step_sizes import StepSizes
from compopt.solvers import Solution, Solver, Status

Gradients: TypeAlias = GameGradients | GeneralGradients


@dataclass(frozen=True)
class Update:
    """Increments of both players, applied by addition.

    Attributes:
        delta: per player, [size of the player]. In the workspace, so good until the next step.
        solution: of the linear system.
        solved: the player whose move was solved for; the other replied to it.
        is_zero_sum: whether the operator's eigenvalues are at least one.
        products: of the first two products, if they were watched, whether what was multiplied and
            what came out have an entry other than zero; 0-dim.
    """

    delta: dict[Player, Tensor]
    solution: Solution
    solved: Player
    is_zero_sum: bool = True
    products: Sequence[tuple[Tensor, Tensor]] = ()


def by_player(gradients: Gradients) -> dict[Player, Tensor]:
    """Return the gradient of each player's own objective."""
    return {"min": gradients.grad_min, "max": gradients.grad_max}


def sign_of(gradients: Gradients, player: Player) -> int:
    """Return the sign of the objective of ``player`` in the loss that is differentiated twice.

    -1 for the max player of a zero-sum game, whose objective is -f; 1 otherwise.
    """
    return -1 if player == "max" and isinstance(gradients, GameGradients) else 1


@marked(Range.SOLVE)
def competitive_update(
    gradients: Gradients,
    step_sizes: Mapping[Player, StepSizes],
    solver: Solver,
    *,
    player: Player = "min",
    previous_delta: Tensor | None = None,
    interacts: bool = True,
    watches: bool = False,
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
        step_sizes: of both players, with their weighed gradients: ``sign S g`` of ``player`` and
            ``H g`` of the other. The weighed gradients are overwritten.
        solver: of the linear system.
        player: whose move is solved for. An exact solve gives the same step for either.
        previous_delta: [size of ``player``] a move to start the solver from, such as the last
            one, or None. It is scaled by the present step sizes.
        interacts: whether to solve at all; if not, both players take their plain gradient steps.
        watches: whether to look for zeros in the first two products.
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
    if not interacts:
        steps = {p: step_sizes[p].plain_step(grad) for p, grad in by_player(gradients).items()}
        return Update(delta=steps, solution=_nothing_solved(steps[player]), solved=player)
    sign = sign_of(gradients, player)
    scale, opponent_sizes = step_sizes[player].root, step_sizes[other].values
    if scale is None:
        raise ValueError(f'The step sizes of "{player}", whose move is solved for, have no root.')
    operator: CompetitiveOperator | GeneralSumOperator
    if isinstance(gradients, GeneralGradients):
        operator = GeneralSumOperator(gradients.mixed, player, scale, opponent_sizes, workspace)
    else:
        operator = CompetitiveOperator(gradients.mixed, player, scale, opponent_sizes, workspace)
    operator.watched = [] if watches else None
    x0 = None
    if previous_delta is not None:
        # A zero step size leaves no move to scale.
        x0 = torch.where(scale > 0, previous_delta / scale * -sign, 0)
    solution = solver.solve(
        operator,
        rhs=step_sizes[player].weighed_grad,
        x0=x0,
        coupled_rhs=by_player(gradients)[other],
        coupled_start=step_sizes[other].weighed_grad,
        overwrite_rhs=True,
    )
    if solution.coupled_value is None:
        raise TypeError(f"The solver {solver!r} must return the coupled half of its solution.")
    # The solver's vectors are ours: they become the increments in place.
    delta = {
        player: solution.value.mul_(scale).mul_(-sign),
        other: solution.coupled_value.neg_(),
    }
    is_zero_sum = isinstance(operator, CompetitiveOperator)
    return Update(delta, solution, player, is_zero_sum, operator.watched or ())


def _nothing_solved(delta: Tensor) -> Solution:
    zero = torch.zeros((), dtype=delta.dtype, device=delta.device)
    return Solution(
        value=delta,
        coupled_value=None,
        num_iter=0,
        residual_norm=zero,
        rhs_norm=zero,
        status_code=torch.full((), int(Status.CONVERGED), device=delta.device),
    )
