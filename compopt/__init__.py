"""Competitive optimization for PyTorch."""

from importlib.metadata import PackageNotFoundError, version

from compopt import penalties
from compopt.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from compopt.diagnosis import (
    OperatorReport,
    PreflightError,
    PreflightReport,
    check_operator,
    double_backward_safe,
    preflight,
)
from compopt.game import Game
from compopt.optim import (
    ACGD,
    ACMD,
    CGD,
    CMD,
    ConvergenceWarning,
    MicroBatches,
    PolymatrixCGD,
    StepError,
    StepReport,
    StepWarning,
)
from compopt.solvers import GMRES, ConjugateGradient, DirectSolver

try:
    __version__ = version("compopt")
except PackageNotFoundError:
    # Imported from a checkout that is not installed.
    __version__ = "0+unknown"

__all__ = [
    "ACGD",
    "ACMD",
    "CGD",
    "CMD",
    "GMRES",
    "CheckpointError",
    "ConjugateGradient",
    "ConvergenceWarning",
    "DirectSolver",
    "Game",
    "MicroBatches",
    "OperatorReport",
    "PolymatrixCGD",
    "PreflightError",
    "PreflightReport",
    "StepError",
    "StepReport",
    "StepWarning",
    "__version__",
    "check_operator",
    "double_backward_safe",
    "load_checkpoint",
    "penalties",
    "preflight",
    "save_checkpoint",
]
