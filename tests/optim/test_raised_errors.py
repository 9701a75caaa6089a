"""Steps in which something raises change nothing."""

from typing import Any

import pytest
from covering import pairwise
from dense_steps import assert_dense_step
from optimizer_registry import COMPETITIVE_KINDS, OptimizerInfo
from snapshots import assert_same_bits, snapshot
from step_faults import ON_FAILURE, PLACES, SOLVERS, STARTS, Fault, num_products, setting
from torch import Tensor

from compopt import DirectSolver
from compopt.solvers import Solution


class RaisingSolver:
    def solve(self, *_: Any, **__: Any) -> Solution:
        raise RuntimeError("out of memory, say")


class UncoupledSolver(DirectSolver):
    def solve_coupled(self, operator: Any, rhs: Tensor, *_: Any) -> Solution:
        return self.solve(operator, rhs)


@pairwise(
    info=COMPETITIVE_KINDS,
    solver=list(SOLVERS),
    on_failure=ON_FAILURE,
    place=PLACES,
    after=STARTS,
)
def test_products_that_raise_change_nothing(
    info: OptimizerInfo, solver: str, on_failure: str, place: str, after: int
) -> None:
    options = {
        "solver": SOLVERS[solver],
        "on_failure": on_failure,
        "warm_start": solver == "cg",
        "weight_decay": 0.1,
    }
    count = num_products(info, after, **options)
    now = setting(info, after, **options)
    fault = Fault("raise", at=1 if place == "first" else count)
    before, report = snapshot(now.optimizer), getattr(now.optimizer, "last_step", None)
    with pytest.raises(RuntimeError, match="out of memory, say"):
        now.optimizer.step(now.game.loss(fault.wrap))
    assert_same_bits(snapshot(now.optimizer), before)
    assert getattr(now.optimizer, "last_step", None) is report
    now.optimizer.solver = DirectSolver()
    assert_dense_step(info, now.optimizer, now.reference)


BAD_SOLVERS = {
    "raises": (RaisingSolver(), RuntimeError, "out of memory, say"),
    "uncoupled": (UncoupledSolver(), TypeError, "must return an `inner_value`"),
}


@pairwise(info=COMPETITIVE_KINDS, bad=BAD_SOLVERS, on_failure=ON_FAILURE, after=STARTS)
def test_solvers_that_raise_change_nothing(
    info: OptimizerInfo, bad: tuple[Any, type[Exception], str], on_failure: str, after: int
) -> None:
    solver, error, match = bad
    now = setting(info, after, solver=solver, on_failure=on_failure, weight_decay=0.1)
    before = snapshot(now.optimizer)
    with pytest.raises(error, match=match):
        now.optimizer.step(now.game.loss())
    assert_same_bits(snapshot(now.optimizer), before)
    now.optimizer.solver = DirectSolver()
    assert_dense_step(info, now.optimizer, now.reference)
