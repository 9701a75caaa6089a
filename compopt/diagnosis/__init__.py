"""Checks to run before training: whether a game can be differentiated twice."""

from compopt.diagnosis._findings import PreflightError, PreflightReport
from compopt.diagnosis.many import preflight_players
from compopt.diagnosis.operator_check import OperatorReport, check_operator
from compopt.diagnosis.preflight import preflight
from compopt.diagnosis.safe import double_backward_safe

__all__ = [
    "OperatorReport",
    "PreflightError",
    "PreflightReport",
    "check_operator",
    "double_backward_safe",
    "preflight",
    "preflight_players",
]
