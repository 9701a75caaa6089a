"""What is done about a step that failed, and solvers that would fail."""

from typing import Literal, TypeAlias

from compopt._remedies import independence
from compopt._warn import warn
from compopt.field import GeneralGradients
from compopt.game import GameGradients
from compopt.optim.report import ConvergenceWarning, StepError, StepReport, StepWarning
from compopt.solvers import ConjugateGradient, Solver, Status

SolveFor: TypeAlias = Literal["min", "max", "alternate", "smaller"]
OnFailure: TypeAlias = Literal["fallback", "skip", "raise"]


def check_solver(solver: object) -> None:
    """Raise unless ``solver`` is an object with a method ``solve``."""
    if isinstance(solver, type):
        name = solver.__name__
        raise TypeError(f"`solver` must be an object, got the class {name}. Use `{name}()`.")
    if not callable(getattr(solver, "solve", None)):
        raise TypeError(
            f"`solver` must have a method `solve`, got {solver!r}. Use one of compopt.solvers, "
            "such as `ConjugateGradient(rtol=1e-2)`."
        )


def check_shardable(solver: Solver) -> None:
    """Raise unless a solver can work on vectors of which it sees a part."""
    if not isinstance(solver, ConjugateGradient):
        raise TypeError(
            f"Sharded vectors need `solver=ConjugateGradient(...)`, got {solver!r}, which would "
            "take its part of a vector for the whole. Pass the process group itself, or "
            "`compopt.distributed.Replicated(group)`, for whole vectors on every rank."
        )


class Trouble:
    """Tells of failed and unfinished solves, each kind once."""

    def __init__(self) -> None:
        self._has_warned = False
        self._has_warned_of_failure = False
        self._has_warned_of_independence = False

    def report_independence(self, gradients: GameGradients | GeneralGradients) -> None:
        """Warn of a loss that does not depend on the opponent, as after a `detach()`."""
        if self._has_warned_of_independence or not isinstance(gradients, GeneralGradients):
            return
        pairs = gradients.mixed.independent()
        if pairs:
            self._has_warned_of_independence = True
            warn(independence(pairs), StepWarning)

    def report(
        self,
        status: Status,
        taken: bool,
        on_failure: OnFailure,
        solver: Solver,
        step: StepReport,
    ) -> None:
        """Raise or warn of a step that was not taken, warn of one that was not solved.

        Raises:
            StepError: if it was not taken and ``on_failure="raise"``.
        """
        if not taken and on_failure == "raise":
            raise StepError(f"The step was not taken. {status.sentence} {step}.")
        is_tolerant = not getattr(solver, "has_fixed_count", False)
        if not taken and not self._has_warned_of_failure:
            self._has_warned_of_failure = True
            message = f"A step was not taken, and later ones may not be either. {status.sentence}"
            warn(f"{message} {step}.", StepWarning)
        elif taken and status is Status.MAX_ITER and is_tolerant and not self._has_warned:
            self._has_warned = True
            warn(f"{status.sentence} {step}.", ConvergenceWarning)
