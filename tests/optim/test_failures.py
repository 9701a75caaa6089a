"""Steps that fail because something is not finite, or a solver says so: what each policy does."""

from typing import Any

import pytest
import torch
from covering import pairwise
from dense_steps import assert_dense_step
from games import QuadraticGame
from optimizer_registry import (
    COMPETITIVE_KINDS,
    OptimizerInfo,
    each_competitive_kind,
)
from snapshots import assert_same_bits, snapshot
from step_faults import (
    BAD_GRADIENTS,
    ON_FAILURE,
    PLACES,
    SOLVERS,
    STARTS,
    Fault,
    each_policy,
    num_products,
    setting,
)

from compopt import ConjugateGradient, ConvergenceWarning, DirectSolver, StepError
from compopt.solvers import Solution, Status

# What the warning says has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore::compopt.StepWarning")


def test_faults_do_nothing_unless_asked() -> None:
    game = QuadraticGame()
    fault = Fault("nan", at=-1)
    loss, faulty = game.loss(), game.loss(fault.wrap)
    assert torch.equal(loss, faulty)
    params = [*game.min_params, *game.max_params]
    for grad, other in zip(
        torch.autograd.grad(loss, params), torch.autograd.grad(faulty, params), strict=True
    ):
        assert torch.equal(grad, other)


@pairwise(
    info=COMPETITIVE_KINDS,
    case=list(BAD_GRADIENTS),
    phases={"step": 1, "two-phase": 2},
    on_failure=ON_FAILURE,
    after=STARTS,
)
def test_gradients_that_are_not_finite_move_nothing(
    info: OptimizerInfo, case: str, phases: int, on_failure: str, after: int
) -> None:
    now = setting(info, after, on_failure=on_failure, weight_decay=0.1, solver=SOLVERS["cg"])
    before = snapshot(now.optimizer)
    loss, penalties = BAD_GRADIENTS[case](now.game)

    def step() -> None:
        if phases == 2:
            now.optimizer.backward(loss, **penalties)
            now.optimizer.step()
        else:
            now.optimizer.step(loss, **penalties)

    if on_failure == "raise":
        with pytest.raises(StepError, match="The step was not taken"):
            step()
    else:
        step()
    assert_same_bits(snapshot(now.optimizer), before)
    assert not now.optimizer.last_step.taken
    assert "step failed" in str(now.optimizer.last_step)
    now.optimizer.solver = DirectSolver()
    assert_dense_step(info, now.optimizer, now.reference)
    assert now.optimizer.last_step.taken


@pairwise(
    info=COMPETITIVE_KINDS,
    solver=list(SOLVERS),
    kind=["nan", "inf"],
    on_failure=ON_FAILURE,
    place=PLACES,
    after=STARTS,
)
def test_products_that_are_not_finite(
    info: OptimizerInfo, solver: str, kind: str, on_failure: str, place: str, after: int
) -> None:
    options = {"solver": SOLVERS[solver], "on_failure": on_failure, "weight_decay": 0.1}
    count = num_products(info, after, **options)
    now = setting(info, after, **options)
    fault = Fault(kind, at=1 if place == "first" else count)
    before = snapshot(now.optimizer)

    def step() -> None:
        now.optimizer.step(now.game.loss(fault.wrap))

    if on_failure == "fallback":
        assert_dense_step(info, now.optimizer, now.reference, step, interacts=False)
    elif on_failure == "skip":
        step()
        assert_same_bits(snapshot(now.optimizer), before)
    else:
        with pytest.raises(StepError, match="The step was not taken"):
            step()
        assert_same_bits(snapshot(now.optimizer), before)
    assert fault.num_products >= fault.at
    assert not now.optimizer.last_step.taken
    if solver != "direct":
        assert now.optimizer.last_step.status is Status.NON_FINITE
    now.optimizer.solver = DirectSolver()
    assert_dense_step(info, now.optimizer, now.reference)
    assert now.optimizer.last_step.taken


class StatusSolver(DirectSolver):
    """An exact solver that reports another status."""

    def __init__(self, status: Status, has_fixed_count: bool) -> None:
        object.__setattr__(self, "status", status)
        object.__setattr__(self, "counts", has_fixed_count)

    @property
    def has_fixed_count(self) -> bool:
        return self.counts

    def solve(self, *args: Any, **kwargs: Any) -> Solution:
        solution = super().solve(*args, **kwargs)
        code = torch.full_like(solution.status_code, int(self.status))
        return Solution(**{**vars(solution), "status_code": code})


@pairwise(
    info=COMPETITIVE_KINDS,
    status=[Status.BREAKDOWN, Status.NON_FINITE],
    on_failure=ON_FAILURE,
    after=STARTS,
)
def test_status_of_a_failure_decides(
    info: OptimizerInfo, status: Status, on_failure: str, after: int
) -> None:
    now = setting(info, after, solver=StatusSolver(status, True), on_failure=on_failure)
    before = snapshot(now.optimizer)

    def step() -> None:
        now.optimizer.step(now.game.loss())

    if on_failure == "fallback":
        assert_dense_step(info, now.optimizer, now.reference, step, interacts=False)
    elif on_failure == "skip":
        step()
    else:
        with pytest.raises(StepError) as caught:
            step()
        assert status.sentence in str(caught.value)
        assert status.name in str(caught.value)
    if on_failure != "fallback":
        assert_same_bits(snapshot(now.optimizer), before)
    assert now.optimizer.last_step.status is status
    assert not now.optimizer.last_step.taken


@each_policy
@each_competitive_kind
def test_a_solve_that_runs_out_of_iterations_is_taken(info: OptimizerInfo, on_failure: str) -> None:
    now = setting(info, 0, solver=StatusSolver(Status.MAX_ITER, True), on_failure=on_failure)
    assert_dense_step(info, now.optimizer, now.reference)
    assert now.optimizer.last_step.taken
    assert now.optimizer.last_step.status is Status.MAX_ITER
    now.optimizer.solver = StatusSolver(Status.MAX_ITER, False)
    with pytest.warns(ConvergenceWarning, match="all its iterations"):
        assert_dense_step(info, now.optimizer, now.reference)


@pairwise(
    info=COMPETITIVE_KINDS,
    case=[*BAD_GRADIENTS, "product-nan"],
    on_failure=["fallback", "skip"],
    after=STARTS,
)
def test_failures_of_capturable_steps(
    info: OptimizerInfo, case: str, on_failure: str, after: int
) -> None:
    """Without reading a value on the host, state comes to be at the first step, but holds zeros."""
    now = setting(
        info,
        after,
        solver=ConjugateGradient(rtol=0.0, max_iter=3),
        on_failure=on_failure,
        capturable=True,
        warm_start=True,
        weight_decay=0.1,
    )
    before = snapshot(now.optimizer)
    if case == "product-nan":
        loss, penalties = now.game.loss(Fault("nan", at=4).wrap), {}
    else:
        loss, penalties = BAD_GRADIENTS[case](now.game)

    def step() -> None:
        now.optimizer.step(loss, **penalties)

    if case == "product-nan" and on_failure == "fallback":
        assert_dense_step(info, now.optimizer, now.reference, step, interacts=False)
    else:
        step()
        left = snapshot(now.optimizer)
        if after == 0:
            assert all(not bool(left.pop(key).any()) for key in list(left) if "state " in key)
            left["number of states"] = before["number of states"]
        assert_same_bits(left, before)
    assert not now.optimizer.last_step.taken
