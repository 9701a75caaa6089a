"""Linear operators of competitive optimization."""

from compopt.operators.base import CoupledOperator, GramOperator, LinearOperator, MatrixOperator
from compopt.operators.competitive import CompetitiveOperator
from compopt.operators.general_sum import GeneralSumOperator
from compopt.operators.polymatrix import PolymatrixOperator

__all__ = [
    "CompetitiveOperator",
    "CoupledOperator",
    "GeneralSumOperator",
    "GramOperator",
    "LinearOperator",
    "MatrixOperator",
    "PolymatrixOperator",
]
