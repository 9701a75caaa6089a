"""A direct solver for small systems."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compopt.kernels._numbers import power_of_two, size_of
from compopt.operators import LinearOperator
from compopt.solvers.base import Solution, check_system, status_code


@dataclass(frozen=True)
class DirectSolver:
    """Solve by building the dense matrix and factorizing it.

    Exact up to rounding. It is the reference for iterative solvers, and a sensible choice for
    players with at most a few hundred parameters.

    Cost: ``n`` products with the operator and O(n^3) operations.
    """

    @property
    def has_fixed_count(self) -> bool:
        """Whether the number of products is fixed, so that no values are read on the host."""
        return True

    @torch.no_grad()
    def solve(self, operator: LinearOperator, rhs: Tensor, x0: Tensor | None = None) -> Solution:
        """Solve as :class:`~compopt.solvers.Solver` describes. ``x0`` is ignored."""
        check_system(operator, rhs, x0)
        matrix = operator.to_dense()
        # Scale the system so that squares neither overflow nor underflow.
        scale = power_of_two(size_of(rhs))
        rhs = rhs / scale
        value, info = torch.linalg.solve_ex(matrix, rhs)
        residual_norm = torch.linalg.vector_norm(rhs - matrix @ value) * scale
        rhs_norm, value_norm = (torch.linalg.vector_norm(v) * scale for v in (rhs, value))
        value.mul_(scale)
        solved = info == 0
        return Solution(
            value=value,
            num_iter=0,
            residual_norm=residual_norm,
            rhs_norm=rhs_norm,
            status_code=status_code(solved, ~solved, torch.isfinite(residual_norm) | ~solved),
            value_norm=value_norm,
        )
