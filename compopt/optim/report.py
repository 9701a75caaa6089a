"""The report of a step, read from the device only on access."""

import math
from dataclasses import dataclass, field
from typing import Generic

import torch
from torch import Tensor

from compopt._remedies import called
from compopt._typing import K
from compopt.solvers import Status

CHECK_THE_LOSS = "Look for an overflow or a division by zero in the loss."
SQUARES_OVERFLOW = (
    "The step sizes come from squared gradients, which are not finite here. Divide the "
    "loss by a constant, or clip gradients (`max_grad_norm`)."
)


class ConvergenceWarning(UserWarning):
    """The linear solve of a step ended before its residual was within the tolerance."""


class StepWarning(UserWarning):
    """A step failed and was replaced or skipped, or its loss is probably not what was intended.

    Each kind is given once per optimizer.
    """


class StepError(RuntimeError):
    """A step failed and was not taken; parameters and state are unchanged."""


@dataclass(frozen=True)
class StepReport(Generic[K]):
    """Figures of one step.

    Norms, residual, status and outcome stay on the device until they are read, so that keeping a
    report costs no synchronisation; each property that reads one synchronises with the device.

    Attributes:
        num_hvp: number of mixed Hessian-vector products.
        num_iter: number of solver iterations.
        solved_for: the player whose move was solved for; None if all moves were solved for jointly.
        residual_is_predicted: whether :attr:`relative_residual` is predicted for the last iteration
            rather than computed (see :class:`~compopt.ConjugateGradient`).
    """

    num_hvp: int
    num_iter: int
    solved_for: K | None
    residual_is_predicted: bool
    _residual_norm: Tensor = field(repr=False)
    _rhs_norm: Tensor = field(repr=False)
    _status_code: Tensor = field(repr=False)
    _losses: tuple[Tensor, ...] = field(repr=False)
    _grad_norm: dict[K, Tensor] = field(repr=False)
    _delta_norm: dict[K, Tensor] = field(repr=False)
    _has_gradients: bool | Tensor = field(repr=False)
    _taken: bool | Tensor = field(repr=False)

    @property
    def status(self) -> Status:
        """Why the solver stopped."""
        return Status(int(self._status_code))

    @property
    def relative_residual(self) -> float:
        """Euclidean norm of the residual over that of the right-hand side (0 if both are 0).

        Infinite if only the right-hand side is 0.

        NaN where it was neither computed nor predicted: after a single iteration of a fixed count.
        After a warm start the norm of the right-hand side is a lower bound.
        """
        residual, rhs = float(self._residual_norm), float(self._rhs_norm)
        if rhs == 0.0:
            return residual * math.inf if residual else 0.0
        return residual / rhs

    @property
    def grad_norms(self) -> dict[K, float]:
        """Euclidean norms of the players' own gradients, before clipping."""
        return {player: float(norm) for player, norm in self._grad_norm.items()}

    @property
    def delta_norms(self) -> dict[K, float]:
        """Euclidean norms of the players' competitive moves."""
        return {player: float(norm) for player, norm in self._delta_norm.items()}

    @property
    def taken(self) -> bool:
        """Whether the competitive step was taken, rather than a fallback or nothing."""
        return bool(self._taken)

    def failure(self) -> str:
        """Return why the step was not taken, and what to try."""
        names = ["the loss"]
        if len(self._losses) > 1:
            names = [
                f"the {player} loss" if isinstance(player, str) else f"losses[{player}]"
                for player in self._grad_norm
            ]
        first = dict(zip(names, self._losses, strict=True))
        first |= {f"the gradient of {called(p)}": n for p, n in self._grad_norm.items()}
        moves = {f"the move of {called(p)}": n for p, n in self._delta_norm.items()}
        return why_not_taken(
            first, self.status, has_squares=bool(self._has_gradients), moves=not_finite(moves)
        )

    def __str__(self) -> str:
        outcome = "taken" if self.taken else "failed"
        norms = ", ".join(f"{norm:.2e} ({player})" for player, norm in self.grad_norms.items())
        return (
            f"step {outcome}: {self.status.name}, {self.num_iter} iterations, {self.num_hvp} "
            f"products, relative residual {self._residual()}, gradient norms {norms}"
        )

    def _residual(self) -> str:
        value = self.relative_residual
        if math.isnan(value):
            return "not known"
        return f"{value:.1e}" + (" (predicted)" if self.residual_is_predicted else "")


def why_not_taken(
    numbers: dict[str, Tensor], status: Status, *, has_squares: bool, moves: str = "A move is"
) -> str:
    """Return why a step was not taken, and what to try.

    Args:
        numbers: the losses, gradients or their norms by name.
        status: the status of the solve.
        has_squares: whether the squares of the gradients are finite, where they are needed.
        moves: the moves that are not finite, followed by the verb.
    """
    names = not_finite(numbers)
    said = f"{names} not finite. " if names else ""
    if status > Status.MAX_ITER:
        return said + status.sentence
    if names:
        return said + CHECK_THE_LOSS
    return f"{moves} not finite. Lower the learning rates." if has_squares else SQUARES_OVERFLOW


def not_finite(numbers: dict[str, Tensor]) -> str:
    """Return the names of the numbers that are not finite and the verb, to start a sentence."""
    names = [name for name, number in numbers.items() if not bool(torch.isfinite(number).all())]
    listed = " and ".join(names)
    return f"{listed[:1].upper()}{listed[1:]} {'is' if len(names) == 1 else 'are'}" if names else ""
