"""The decision whether a competitive step is taken."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import Tensor

from compopt._remedies import called
from compopt._typing import K
from compopt.derivatives import Derivatives
from compopt.distributed import Placement
from compopt.kernels._numbers import Number, is_free_to_read
from compopt.optim.report import StepReport, why_not_taken
from compopt.optim.update import Update
from compopt.solvers import Status


@dataclass(frozen=True)
class Verdict(Generic[K]):
    """The decision on a step.

    Attributes:
        report: the report of the step.
        use_solution: whether the competitive moves are taken.
        advance: whether any step is taken; the plain step if ``use_solution`` is False.
        status: why the solver stopped; None if nothing is read on the host.
        signs: the names of the flags that are set.
    """

    report: StepReport[K]
    use_solution: bool | Tensor
    advance: bool | Tensor
    status: Status | None = None
    signs: frozenset[str] = frozenset()


def judge(
    update: Update[K],
    derivatives: Derivatives[K],
    grad_norm: dict[K, Tensor],
    placement: Placement,
    *,
    reads: bool,
    falls_back: bool,
    squared: Collection[K],
    is_clipped: bool,
    signs: Mapping[str, Tensor],
) -> Verdict[K]:
    """Judge a step by its solve and by whether its values are finite.

    Args:
        update: the moves of all players.
        derivatives: the derivatives, with clipped gradients.
        grad_norm: norms before clipping, by player. With ``reads``, infinite also if squares
            overflow.
        placement: placement of the players' vectors.
        reads: whether values may be read on the host, which waits for the device once. A step that
            is not good is then judged again, by norms that do not overflow. If False, such norms
            are used at once.
        falls_back: whether the plain step replaces a failed solve.
        squared: the players whose step sizes are computed from squared gradients. These squares
            must be finite.
        is_clipped: whether gradients were clipped.
        signs: 0-dim flags to read at the same time, by name.
    """
    on_host = reads and is_free_to_read(derivatives.losses[0].device)
    delta_norm = placement.norms(update.delta, of_any_size=not reads)
    norms = grad_norm
    if squared and is_clipped and not reads:
        # `grad_norm` is before clipping, but the squares are of clipped gradients.
        norms = placement.norms(derivatives.grads, of_any_size=True)
    report = _report(update, derivatives, norms, grad_norm, delta_norm, squared, on_host)
    if not reads:
        taken = report._taken
        return Verdict(report, taken, report._has_gradients if falls_back else taken)
    verdict = _read(report, falls_back, placement, signs)
    if verdict.use_solution:
        return verdict
    norms = placement.norms(derivatives.grads, of_any_size=True)
    report = _report(
        update,
        derivatives,
        norms,
        grad_norm if is_clipped else norms,
        placement.norms(update.delta, of_any_size=True),
        squared,
        on_host,
    )
    return _read(report, falls_back, placement, signs)


@dataclass(frozen=True)
class OutcomeAlone:
    """Whether a step of one player is finite, on the device until it is read.

    Attributes:
        player: the player that moves.
        norm: the norm of its clipped gradient.
        has_squares: whether the gradient is finite, and its squares where they are needed.
        taken: whether the move is finite as well.
    """

    player: object
    norm: Tensor
    has_squares: Tensor
    taken: Tensor

    def failure(self) -> str:
        """Return why the step was not taken, and what to try."""
        return why_not_taken(
            {f"the gradient of {called(self.player)}": self.norm},
            Status.CONVERGED,
            has_squares=bool(self.has_squares),
            moves=f"The move of {called(self.player)} is",
        )


def judge_alone(
    player: K, grad: Tensor, delta: Tensor, placement: Placement, *, squares_gradients: bool
) -> OutcomeAlone:
    """Return whether a step of ``player`` is finite.

    Args:
        player: the player that moves.
        grad: [size of the player] its clipped gradient.
        delta: [size of the player] its move.
        placement: placement of the player's vectors.
        squares_gradients: whether step sizes use squared gradients, which must then be finite.
    """
    norm, length = (
        placement.norms({player: vector}, of_any_size=True)[player] for vector in (grad, delta)
    )
    has_squares = torch.isfinite(norm.to(grad.dtype).square() if squares_gradients else norm)
    return OutcomeAlone(player, norm, has_squares, has_squares & torch.isfinite(length))


def _report(
    update: Update[K],
    derivatives: Derivatives[K],
    norms: dict[K, Tensor],
    shown_norms: dict[K, Tensor],
    delta_norm: dict[K, Tensor],
    squared: Collection[K],
    on_host: bool,
) -> StepReport[K]:
    """Return the report of a step, whose outcome is a bool if ``on_host``, else a tensor."""
    solution, losses = update.solution, derivatives.losses
    sizes: list[Any] = [
        _square(norm, derivatives.grads[player].dtype, on_host) if player in squared else norm
        for player, norm in norms.items()
    ]
    is_finite = _finite_on_host if on_host else _finite
    has_gradients = is_finite([*losses, *sizes])
    code = solution.status_code.item() if on_host else solution.status_code
    is_solved = code <= _LAST_SOLVED
    return StepReport(
        num_hvp=derivatives.num_products,
        num_iter=solution.num_iter,
        solved_for=update.solved,
        residual_is_predicted=solution.is_predicted,
        _residual_norm=solution.residual_norm,
        _rhs_norm=solution.rhs_norm,
        _status_code=solution.status_code,
        _losses=losses,
        _grad_norm=shown_norms,
        _delta_norm=delta_norm,
        _has_gradients=has_gradients,
        _taken=has_gradients & is_solved & is_finite(delta_norm.values()),
    )


_LAST_SOLVED = int(Status.MAX_ITER)


def _finite(numbers: Collection[Any]) -> Tensor:
    """Return whether all numbers are finite, 0-dim: NaN and Inf remain in their sum."""
    first, *others = (number.reshape(()) for number in numbers)
    return torch.isfinite(sum(others, first))


def _square(norm: Tensor, dtype: torch.dtype, on_host: bool) -> Number:
    """Return the square of a norm, infinite if it overflows ``dtype``."""
    if on_host:
        square = norm.item() * norm.item()
        return square if square <= torch.finfo(dtype).max else math.inf
    return norm.to(dtype).square()


def _finite_on_host(numbers: Collection[Any]) -> bool:
    return all(map(math.isfinite, numbers))


def _read(
    report: StepReport[K], falls_back: bool, placement: Placement, signs: Mapping[str, Tensor]
) -> Verdict[K]:
    """Read the outcome on the host; return the verdict on which all processes agree."""
    flags = [report._status_code, report._taken, report._has_gradients, *signs.values()]
    if isinstance(report._taken, bool):
        outcome: Any = [int(flag) for flag in flags]
    else:
        outcome = torch.stack([torch.as_tensor(flag).long() for flag in flags])
    # The only place where a step waits for the device, after all its work is queued.
    code, taken, has_gradients, *answers = placement.agree(outcome)
    return Verdict(
        report,
        use_solution=bool(taken),
        advance=bool(has_gradients if falls_back else taken),
        status=Status(code),
        signs=frozenset(name for name, holds in zip(signs, answers, strict=True) if holds),
    )


def select(condition: bool | Tensor, value: Tensor, other: Tensor) -> Tensor:
    """Return ``value`` or ``other``; on the device if ``condition`` has not been read."""
    if isinstance(condition, bool):
        return value if condition else other
    return torch.where(condition, value, other)
