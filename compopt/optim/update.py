"""One competitive step: the module to compare with the paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from compopt._flat import Workspace
from compopt._typing import OPPONENT, K, Player
from compopt.derivatives import Derivatives
from compopt.operators import PolymatrixOperator, TwoPlayerOperator
from compopt.solvers import Solution, Solver, Status, solve_coupled


@dataclass(frozen=True)
class StepSizes:
    """Step sizes as a diagonal matrix H = S^2, and the player's gradient g scaled with them.

    Attributes:
        values: [n] H, >= 0.
        root: [n] S for the player whose move is solved for; None for its opponent.
        scaled_grad: [n] ``sign S g`` of the player whose move is solved for, with the sign that
            its objective has in the loss; ``H g`` of its opponent. A solver may overwrite it.
    """

    values: Tensor
    root: Tensor | None
    scaled_grad: Tensor
    are_adaptive: bool = False

    @classmethod
    def of(
        cls,
        values: Tensor,
        grad: Tensor,
        sign: int | None,
        root: Tensor | None = None,
        scaled_grad: Tensor | None = None,
        *,
        are_adaptive: bool = False,
    ) -> "StepSizes":
        """Return step sizes with their root, and the gradient scaled with them.

        Args:
            values: [n] the step sizes.
            grad: [n] gradient of the player's own objective. Not modified.
            sign: 1 or -1 if the player's move is solved for, None if not.
            root: [n] where to write the roots, if there is a sign; a new vector if None.
            scaled_grad: [n] where to write the scaled gradient; a new vector if None.
            are_adaptive: whether step sizes are computed from squared gradients.
        """
        if sign is None:
            return cls(values, None, torch.mul(values, grad, out=scaled_grad), are_adaptive)
        root = torch.sqrt(values, out=root)
        scaled_grad = torch.mul(root, grad, out=scaled_grad)
        scaled_grad = scaled_grad.neg_() if sign < 0 else scaled_grad
        return cls(values, root, scaled_grad, are_adaptive)

    def plain_step(self, grad: Tensor) -> Tensor:
        """Return the gradient step ``-H grad``, the fallback of a failed solve."""
        return (self.values * grad).neg_()


@dataclass(frozen=True)
class Update(Generic[K]):
    """Increments of all players, applied by addition.

    Attributes:
        delta: by player, [size of the player]. In the workspace: valid until the next step.
        solution: solution of the linear system.
        solved: the player whose move was solved for, to which the other replied; None if all moves
            were solved for jointly.
        is_zero_sum: whether the operator's eigenvalues are at least one.
        products: 0-dim flags of the first two products, for several players of the first, if they
            were watched: whether the vector and the product have an entry other than zero.
    """

    delta: dict[K, Tensor]
    solution: Solution
    solved: K | None
    is_zero_sum: bool = True
    products: Sequence[tuple[Tensor, Tensor]] = ()


def competitive_update(
    derivatives: Derivatives[Player],
    step_sizes: Mapping[Player, StepSizes],
    solver: Solver | None,
    *,
    player: Player = "min",
    previous_delta: Tensor | None = None,
    watches: bool = False,
    may_read: bool = True,
    workspace: Workspace | None = None,
) -> Update[Player]:
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
    :class:`~compopt.operators.TwoPlayerOperator` implements both.

    Args:
        derivatives: derivatives of the game. The gradients are not modified.
        step_sizes: step sizes of both players, with scaled gradients: ``sign S g`` of ``player``
            and ``H g`` of the other. The scaled gradients are overwritten.
        solver: solver of the linear system; None for the gradient steps.
        player: the player whose move is solved for. An exact solve gives the same step for either.
        previous_delta: [size of ``player``] a move to start the solver from, such as the last
            one, or None. It is scaled by the current step sizes.
        watches: whether to check the first two products for zeros.
        may_read: whether values may be read on the host where that costs nothing.
        workspace: provides large vectors; a new one if None.

    Returns:
        The increments of both players.

    Cost: ``2 k`` or ``1 + 2 k`` mixed products for ``k`` conjugate gradient iterations (see
    :class:`~compopt.ConjugateGradient`); one more from ``previous_delta``.

    References:
        Schäfer and Anandkumar (2019), Section 2. https://arxiv.org/abs/1905.12103
        Schäfer, Zheng and Anandkumar (2020), for diagonal step sizes.
        https://arxiv.org/abs/1910.05852
    """
    other, grads = OPPONENT[player], derivatives.grads
    if solver is None:
        steps = {p: step_sizes[p].plain_step(grad) for p, grad in grads.items()}
        return Update(delta=steps, solution=nothing_solved(steps[player]), solved=player)
    scale, sign = step_sizes[player].root, derivatives.signs[player]
    if scale is None:
        raise ValueError(f'The step sizes of "{player}", whose move is solved for, have no root.')
    operator = TwoPlayerOperator(
        derivatives, player, scale, step_sizes[other].values, workspace, may_read=may_read
    )
    operator.watched = [] if watches else None
    x0 = None
    if previous_delta is not None:
        # Avoid 0 / 0 where the step size is zero.
        x0 = torch.where(scale > 0, previous_delta / scale * -sign, 0)
    scaled = {p: sizes.scaled_grad for p, sizes in step_sizes.items()}
    solution = solve_coupled(solver, operator, scaled[player], grads[other], scaled[other], x0)
    if solution.inner_value is None:
        raise TypeError(f"`solve_coupled` of {solver!r} must return an `inner_value`.")
    # No one else uses the solver's vectors: scale them to the increments in place.
    move = solution.value.mul_(scale)
    delta = {
        player: move if sign < 0 else move.neg_(),
        other: solution.inner_value.neg_(),
    }
    is_zero_sum = derivatives.is_zero_sum
    return Update(delta, solution, player, is_zero_sum, operator.watched or ())


def joint_update(
    derivatives: Derivatives[K],
    step_sizes: Mapping[K, StepSizes],
    solver: Solver | None,
    *,
    previous: Mapping[K, Tensor] | None = None,
    watches: bool = False,
) -> Update[K]:
    """Return the Nash equilibrium of the local game of any number of players, solved for jointly.

    With diagonal step sizes H = S^2 and the gradients xi of the players' own losses, the moves are
    ``d = -S u`` with ``(I + S H_o S) u = S xi``.

    Args:
        derivatives: derivatives of the game. The gradients are not modified.
        step_sizes: step sizes of all players, with roots, and with ``S xi`` as scaled gradients.
        solver: solver of the joint system; None for the gradient steps.
        previous: by player, [size of the player] moves to start the solver from, or None.
        watches: whether to check the first product for zeros.

    References:
        Ma, Letcher, Schäfer, Shi and Anandkumar (2021). https://arxiv.org/abs/2111.08565
    """
    if solver is None:
        steps = {p: step_sizes[p].plain_step(grad) for p, grad in derivatives.grads.items()}
        return Update(steps, nothing_solved(next(iter(steps.values()))), None, is_zero_sum=False)
    roots = {p: sizes.root for p, sizes in step_sizes.items() if sizes.root is not None}
    operator = PolymatrixOperator(derivatives, roots)
    operator.watched = [] if watches else None
    rhs = operator.join({player: sizes.scaled_grad for player, sizes in step_sizes.items()})
    x0 = None
    if previous is not None:
        x0 = torch.where(operator.scale > 0, -operator.join(previous) / operator.scale, 0)
    solution = solver.solve(operator, rhs, x0)
    moves = operator.split(solution.value.mul(operator.scale).neg_())
    return Update(moves, solution, None, is_zero_sum=False, products=operator.watched or ())


def nothing_solved(delta: Tensor) -> Solution:
    """Return a placeholder for the solution if nothing is solved."""
    zero = torch.zeros((), dtype=delta.dtype, device=delta.device)
    return Solution(
        value=delta,
        num_iter=0,
        residual_norm=zero,
        rhs_norm=zero,
        status_code=torch.full((), int(Status.CONVERGED), device=delta.device),
    )
