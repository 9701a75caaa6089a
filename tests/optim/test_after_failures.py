"""What a step that was not taken leaves behind, and how the run goes on."""

import re
import warnings
from typing import Any

import pytest
import torch
from covering import pairwise
from dense_steps import assert_close, assert_dense_step
from games import QuadraticGame, flat
from optimizer_registry import OptimizerInfo, each_competitive_kind
from snapshots import all_params, assert_same_bits, snapshot
from step_faults import SOLVERS, Fault, each_policy, setting
from torch import nn

from compopt import ACGD, CGD, StepError, StepWarning
from compopt.solvers import Status

# What the warning says has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore::compopt.StepWarning")


@each_policy
@each_competitive_kind
def test_buffers_of_a_failed_step_are_the_users(info: OptimizerInfo, on_failure: str) -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    critic = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = info.cls(generator.parameters(), critic.parameters(), on_failure=on_failure)
    loss = critic(generator(torch.randn(8, 2))).mean() * torch.nan
    before = snapshot(optimizer, generator, critic)
    if on_failure == "raise":
        with pytest.raises(StepError):
            optimizer.step(loss)
    else:
        assert optimizer.step(loss).isnan()
    assert_same_bits(snapshot(optimizer, generator, critic), before)
    assert critic[1].num_batches_tracked.item() == 1


@each_policy
@each_competitive_kind
def test_warm_start_goes_on_after_a_failure(info: OptimizerInfo, on_failure: str) -> None:
    """Whatever was stored, the next solve starts from something finite and is exact again."""
    now = setting(
        info, 2, solver=SOLVERS["cg"], on_failure=on_failure, warm_start=True, solve_for="min"
    )
    fault = Fault("nan", at=3)

    def step() -> None:
        now.optimizer.step(now.game.loss(fault.wrap))

    if on_failure == "raise":
        with pytest.raises(StepError):
            step()
    elif on_failure == "skip":
        step()
    else:
        assert_dense_step(info, now.optimizer, now.reference, step, interacts=False)
    for _ in range(2):
        assert_dense_step(info, now.optimizer, now.reference)
        assert now.optimizer.last_step.taken


@each_policy
@each_competitive_kind
def test_alternation_waits_for_a_failed_step(info: OptimizerInfo, on_failure: str) -> None:
    """A step that was not taken is not counted, so the same player is solved for again."""
    now = setting(info, 1, solver=SOLVERS["cg"], on_failure=on_failure, solve_for="alternate")
    bad = now.game.loss() + torch.nan
    if on_failure == "raise":
        with pytest.raises(StepError):
            now.optimizer.step(bad)
    else:
        now.optimizer.step(bad)
    assert now.optimizer.last_step.solved_for == "min"
    now.optimizer.step(now.game.loss())
    assert now.optimizer.last_step.solved_for == "min"
    now.optimizer.step(now.game.loss())
    assert now.optimizer.last_step.solved_for == "max"


def test_fallback_of_cgd_is_the_plain_gradient_step() -> None:
    game = QuadraticGame()
    start = [flat(params).detach().clone() for params in (game.min_params, game.max_params)]
    own = game.own_grads()
    optimizer = CGD(game.min_params, game.max_params, lr=(0.2, 0.05))
    optimizer.step(game.loss(Fault("nan", at=1).wrap))
    assert_close(flat(game.min_params).detach(), start[0] - 0.2 * own["min"], "min player")
    assert_close(flat(game.max_params).detach(), start[1] - 0.05 * own["max"], "max player")


@pytest.mark.parametrize("case", ["eps", "lr"])
def test_fallback_writes_nothing_that_is_not_finite(case: str) -> None:
    """No eps and a zero gradient give an infinite step size, a huge one an infinite move."""
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    if case == "eps":
        optimizer = ACGD([x], [y], lr=0.1, eps=0.0)
        loss = x[0] * y[0] + 0 * (x * y).sum()
    else:
        optimizer = CGD([x], [y], lr=1e30)
        loss = 1e15 * (x * y).sum()
    before = snapshot(optimizer)
    optimizer.step(loss)
    assert not optimizer.last_step.taken
    assert all(bool(param.isfinite().all()) for param in all_params(optimizer))
    assert_same_bits(snapshot(optimizer), before)


@pytest.mark.parametrize("on_failure", ["fallback", "skip"])
def test_a_failure_is_said_once(on_failure: str) -> None:
    game = QuadraticGame()
    optimizer = CGD(game.min_params, game.max_params, lr=0.1, on_failure=on_failure)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StepWarning)
        for _ in range(3):
            optimizer.step(game.loss(Fault("nan", at=1).wrap))
    (warning,) = caught
    assert re.search("was not taken.*NaN or Inf", str(warning.message))
    assert warning.filename == __file__


@pairwise(cls=[CGD, ACGD], on_failure=["fallback", "skip", "raise"], spoil=["loss", "gradient"])
def test_report_after_a_warm_start_that_failed(cls: Any, on_failure: str, spoil: str) -> None:
    x, y = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = cls([x], [y], lr=0.1, warm_start=True, on_failure=on_failure)
    optimizer.step((x * y).sum())
    before = snapshot(optimizer)
    if spoil == "loss":
        loss = (x * y).sum() * float("nan")
    else:
        loss = (x * y).sum() + ((x - x.detach()) ** 2).sum().sqrt()
    if on_failure == "raise":
        with pytest.raises(StepError, match="not taken"):
            optimizer.step(loss)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StepWarning)
            optimizer.step(loss)
    assert not optimizer.last_step.taken
    assert "failed" in str(optimizer.last_step)
    assert_same_bits(snapshot(optimizer), before)


@pytest.mark.parametrize("cls", [CGD, ACGD])
def test_warm_start_of_a_zero_system_is_solved_at_once(cls: Any) -> None:
    x, y = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = cls([x], [y], lr=0.1, warm_start=True)
    optimizer.step((x * y).sum())
    with torch.no_grad():
        x.zero_()
        y.zero_()
    optimizer.step((x * y).sum())
    report = optimizer.last_step
    assert (report.status, report.num_iter, report.relative_residual) == (Status.CONVERGED, 0, 0)
    assert report.taken
    assert not x.any()
    assert not y.any()
