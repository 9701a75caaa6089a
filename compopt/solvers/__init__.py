"""Solvers of linear systems that are given by products with the matrix."""

from compopt.solvers.base import Solution, Solver, Status, solve_coupled
from compopt.solvers.cg import ConjugateGradient
from compopt.solvers.direct import DirectSolver
from compopt.solvers.gmres import GMRES

__all__ = [
    "GMRES",
    "ConjugateGradient",
    "DirectSolver",
    "Solution",
    "Solver",
    "Status",
    "solve_coupled",
]
