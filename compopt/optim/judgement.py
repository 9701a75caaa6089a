"""Whether a competitive step is taken."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compopt._typing import Player
from compopt.distributed import Placement
from compopt.optim.report import StepReport
from compopt.optim.update import Gradients, Update, by_player
from compopt.solvers import Status


@dataclass(frozen=True)
class Verdict:
    """What is done with a step.

    Attributes:
        report: of the step.
        use_solution: whether the competitive moves are taken.
        advance: whether anything is taken; if not the solution, then the plain step.
        status: why the solver stopped; None where nothing is read on the host.
        signs: the names of the signs that hold.
    """

    report: StepReport
    use_solution: bool | Tensor
    advance: bool | Tensor
    status: Status | None = None
    signs: frozenset[str] = frozenset()


def judge(
    update: Update,
    gradients: Gradients,
    grad_norm: dict[Player, Tensor],
    placement: Placement,
    *,
    reads: bool,
    falls_back: bool,
    squares_gradients: bool,
    is_clipped: bool,
    signs: Mapping[str, Tensor],
) -> Verdict:
    """Judge a step by its solve, and by whether its numbers are finite.

    Args:
        update: of both players.
        gradients: as clipped.
        grad_norm: before clipping, by player. Infinite also where squares overflow.
        placement: of the players' vectors.
        reads: whether the host may wait for the device, as it does here once. A step that is not
            good then gets a second look, at norms that do not overflow. Without it the first look
            is at those.
        falls_back: whether a failed solve leaves the plain step.
        squares_gradients: whether step sizes are made of squares of gradients, which must be finite
            then.
        is_clipped: whether gradients were clipped.
        signs: 0-dim flags to read along, by name.
    """
    delta_norm = placement.norms(update.delta, of_any_size=not reads)
    norms = grad_norm
    if squares_gradients and is_clipped and not reads:
        # There is no second look at what was clipped.
        norms = placement.norms(by_player(gradients), of_any_size=True)
    report = _report(update, gradients, norms, grad_norm, delta_norm, squares_gradients)
    if not reads:
        taken = report._taken
        return Verdict(report, taken, report._has_gradients if falls_back else taken)
    verdict = _read(report, falls_back, placement, signs)
    if verdict.use_solution:
        return verdict
    norms = placement.norms(by_player(gradients), of_any_size=True)
    report = _report(
        update,
        gradients,
        norms,
        grad_norm if is_clipped else norms,
        placement.norms(update.delta, of_any_size=True),
        squares_gradients,
    )
    return _read(report, falls_back, placement, signs)


def _report(
    update: Update,
    gradients: Gradients,
    norms: dict[Player, Tensor],
    shown_norms: dict[Player, Tensor],
    delta_norm: dict[Player, Tensor],
    squares: bool,
) -> StepReport:
    solution = update.solution
    found = gradients.losses()
    losses = found if isinstance(found, tuple) else (found,)
    grads = by_player(gradients)
    sizes = [norm.to(grads[p].dtype).square() if squares else norm for p, norm in norms.items()]
    first, *others = [*(loss.reshape(()) for loss in losses), *sizes]
    has_gradients = torch.isfinite(sum(others, first))
    is_solved = (solution.status_code <= int(Status.MAX_ITER)) & torch.isfinite(
        delta_norm["min"] + delta_norm["max"]
    )
    return StepReport(
        num_hvp=gradients.mixed.num_products,
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
        _taken=has_gradients & is_solved,
    )


def _read(
    report: StepReport, falls_back: bool, placement: Placement, signs: Mapping[str, Tensor]
) -> Verdict:
    """Return the verdict as the host knows it, and as all processes do."""
    flags = [report._taken, report._has_gradients, *signs.values()]
    outcome = torch.stack([report._status_code, *(flag.long() for flag in flags)])
    # The one place where a step waits for the device, after all its work is queued.
    code, taken, has_gradients, *answers = placement.agree(outcome).tolist()
    return Verdict(
        report,
        use_solution=bool(taken),
        advance=bool(has_gradients if falls_back else taken),
        status=Status(code),
        signs=frozenset(name for name, holds in zip(signs, answers, strict=True) if holds),
    )
