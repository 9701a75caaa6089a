"""Competitive optimizers."""

from compopt.optim.acgd import ACGD
from compopt.optim.cgd import CGD
from compopt.optim.cmd import ACMD, CMD
from compopt.optim.loss import MicroBatches
from compopt.optim.polymatrix import PolymatrixCGD
from compopt.optim.report import ConvergenceWarning, StepError, StepReport, StepWarning

__all__ = [
    "ACGD",
    "ACMD",
    "CGD",
    "CMD",
    "ConvergenceWarning",
    "MicroBatches",
    "PolymatrixCGD",
    "StepError",
    "StepReport",
    "StepWarning",
]
