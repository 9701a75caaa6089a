"""Linear operators of competitive optimization."""

from compopt.operators.base import CoupledOperator, LinearOperator, MatrixOperator
from compopt.operators.polymatrix import PolymatrixOperator
from compopt.operators.two_player import TwoPlayerOperator

__all__ = [
    "CoupledOperator",
    "LinearOperator",
    "MatrixOperator",
    "PolymatrixOperator",
    "TwoPlayerOperator",
]
