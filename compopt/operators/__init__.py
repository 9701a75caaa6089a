"""Linear operators of competitive optimization."""

from compopt.operators.base import GramOperator, LinearOperator, MatrixOperator
from compopt.operators.competitive import CompetitiveOperator

__all__ = ["CompetitiveOperator", "GramOperator", "LinearOperator", "MatrixOperator"]
