"""Solvers of linear systems that are known through products."""

from compopt.solvers.base import Solution, Solver, Status
from compopt.solvers.cg import ConjugateGradient
from compopt.solvers.direct import DirectSolver

__all__ = ["ConjugateGradient", "DirectSolver", "Solution", "Solver", "Status"]
