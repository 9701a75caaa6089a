"""Competitive optimization for PyTorch."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from compopt import derivatives, distributed, kernels, operators, optim, penalties, solvers
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
    CGD,
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
    "CGD",
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
    "compile",
    "compiled",
    "derivatives",
    "distributed",
    "double_backward_safe",
    "games",
    "kernels",
    "load_checkpoint",
    "losses",
    "nn",
    "operators",
    "optim",
    "penalties",
    "preflight",
    "save_checkpoint",
    "solvers",
]

# Imported on first access. `__getattr__` is hidden from type checkers: with it, they would accept
# any misspelt attribute.
if TYPE_CHECKING:
    from compopt import compiled, games, losses, nn
    from compopt.compiled import compile  # noqa: A004
else:

    def __getattr__(name: str) -> Any:
        if name in ("compiled", "games", "losses", "nn"):
            return import_module(f"compopt.{name}")
        if name == "compile":
            return import_module("compopt.compiled").compile
        raise AttributeError(f"module 'compopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
