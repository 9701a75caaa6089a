"""Competitive optimizers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from compopt.game import MicroBatches
from compopt.optim import mirrors
from compopt.optim.acgd import ACGD
from compopt.optim.cgd import CGD
from compopt.optim.polymatrix import PolymatrixCGD
from compopt.optim.report import ConvergenceWarning, StepError, StepReport, StepWarning

__all__ = [
    "ACGD",
    "CGD",
    "ConvergenceWarning",
    "MicroBatches",
    "PolymatrixCGD",
    "StepError",
    "StepReport",
    "StepWarning",
    "mirrors",
    "rivals",
]

# Imported on first access, which type checkers need not see, as in `compopt`.
if TYPE_CHECKING:
    from compopt.optim import rivals
else:

    def __getattr__(name: str) -> Any:
        if name == "rivals":
            return import_module("compopt.optim.rivals")
        raise AttributeError(f"module 'compopt.optim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
