"""Steps that fail: what is not finite, what raises, and what is left behind."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from dense_steps import DenseReference, assert_close, assert_dense_step
from games import QuadraticGame, flat
from optimizer_registry import OptimizerInfo, each_optimizer
from snapshots import all_params, assert_same_bits, snapshot
from torch import Tensor, nn

from compopt import (
    ACGD,
    CGD,
    ConjugateGradient,
    ConvergenceWarning,
    DirectSolver,
    StepError,
    StepWarning,
)
from compopt.solvers import Solution, Status

# What the warning says has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore::compopt.StepWarning")

ON_FAILURE = ("fallback", "skip", "raise")


class Fault:
    """Counts the mixed products of a loss and spoils the one numbered ``at``, from 1."""

    def __init__(self, kind: str, at: int) -> None:
        self.kind = kind
        self.at = at
        self.num_products = 0

    def __call__(self, vector: Tensor) -> Tensor:
        self.num_products += 1
        if self.num_products != self.at:
            return vector
        if self.kind == "raise":
            raise RuntimeError("out of memory, say")
        return torch.cat([vector[:1] * float(self.kind), vector[1:]])

    def wrap(self, tensor: Tensor) -> Tensor:
        return _Faulty.apply(tensor, self)


class _Faulty(torch.autograd.Function):
    """The identity, whose gradient is right and whose second derivative has the fault."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, fault: Fault) -> Tensor:
        ctx.fault = fault
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _FaultyGradient.apply(grad, ctx.fault), None


class _FaultyGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, fault: Fault) -> Tensor:
        ctx.fault = fault
        return grad.clone()

    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> tuple[Tensor, None]:
        return ctx.fault(vector), None


SOLVERS = {
    "cg": ConjugateGradient(rtol=1e-13, max_iter=60),
    "cg-one-iteration": ConjugateGradient(rtol=0.0, max_iter=1),
    "cg-lazy": ConjugateGradient(rtol=1e-13, max_iter=60, check_every=4),
    "direct": DirectSolver(),
}


@dataclass
class Setting:
    """A game after some healthy steps, with the reference that went along."""

    game: QuadraticGame
    optimizer: torch.optim.Optimizer
    reference: DenseReference


def setting(info: OptimizerInfo, after: int, **kwargs: Any) -> Setting:
    game = QuadraticGame()
    good = kwargs.pop("solver", DirectSolver())
    optimizer = info.exact(game, **kwargs)
    reference = DenseReference(info, game)
    for _ in range(after):
        assert_dense_step(info, optimizer, reference)
    optimizer.solver = good
    return Setting(game, optimizer, reference)


def num_products(info: OptimizerInfo, after: int, **kwargs: Any) -> int:
    """Return the products of a healthy step in the same place, counted by the fault itself."""
    twin = setting(info, after, **kwargs)
    fault = Fault("raise", at=-1)
    twin.optimizer.step(twin.game.loss(fault.wrap))
    assert fault.num_products == twin.optimizer.last_step.num_hvp
    return fault.num_products


each_policy = pytest.mark.parametrize("on_failure", ON_FAILURE)
each_start = pytest.mark.parametrize("after", [0, 3], ids=["first-step", "later-step"])
each_place = pytest.mark.parametrize("place", ["first", "last"])


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


# Each makes something not finite before the solve: the loss, a gradient, a penalty's gradient.
def infinite_slope(param: Tensor) -> Tensor:
    """Return zero with an infinite gradient."""
    return (param - param.detach()).sum().sqrt()


BAD_GRADIENTS: dict[str, Callable[[QuadraticGame], tuple[Tensor, dict[str, Tensor]]]] = {
    "loss-nan": lambda game: (game.loss() + torch.nan, {}),
    "loss-inf": lambda game: (game.loss() + torch.inf, {}),
    "min-gradient-nan": lambda game: (game.loss() + 0 * infinite_slope(game.min_params[1]), {}),
    "max-gradient-nan": lambda game: (game.loss() + 0 * infinite_slope(game.max_params[0]), {}),
    "min-gradient-inf": lambda game: (game.loss() + infinite_slope(game.min_params[1]), {}),
    "max-gradient-inf": lambda game: (game.loss() - infinite_slope(game.max_params[1]), {}),
    "min-penalty-nan": lambda game: (
        game.loss(),
        {"min_penalty": 0 * infinite_slope(game.min_params[0])},
    ),
    "max-penalty-inf": lambda game: (
        game.loss(),
        {"max_penalty": infinite_slope(game.max_params[0])},
    ),
}


@each_start
@each_policy
@pytest.mark.parametrize("phases", [1, 2], ids=["step", "two-phase"])
@pytest.mark.parametrize("case", BAD_GRADIENTS)
@each_optimizer
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


@each_start
@each_place
@each_policy
@pytest.mark.parametrize("kind", ["nan", "inf"])
@pytest.mark.parametrize("solver", SOLVERS)
@each_optimizer
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


class RaisingSolver:
    def solve(self, *_: Any, **__: Any) -> Solution:
        raise RuntimeError("out of memory, say")


class UncoupledSolver(DirectSolver):
    def solve(self, operator: Any, rhs: Tensor, *_: Any, **__: Any) -> Solution:
        return super().solve(operator, rhs)


@each_start
@each_place
@each_policy
@pytest.mark.parametrize("solver", SOLVERS)
@each_optimizer
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
    before, report = snapshot(now.optimizer), now.optimizer.last_step
    with pytest.raises(RuntimeError, match="out of memory, say"):
        now.optimizer.step(now.game.loss(fault.wrap))
    assert_same_bits(snapshot(now.optimizer), before)
    assert now.optimizer.last_step is report
    now.optimizer.solver = DirectSolver()
    assert_dense_step(info, now.optimizer, now.reference)


@each_start
@each_policy
@pytest.mark.parametrize(
    ("solver", "error", "match"),
    [
        pytest.param(RaisingSolver(), RuntimeError, "out of memory, say", id="raises"),
        pytest.param(UncoupledSolver(), TypeError, "coupled half", id="uncoupled"),
    ],
)
@each_optimizer
def test_solvers_that_raise_change_nothing(
    info: OptimizerInfo,
    solver: Any,
    error: type[Exception],
    match: str,
    on_failure: str,
    after: int,
) -> None:
    now = setting(info, after, solver=solver, on_failure=on_failure, weight_decay=0.1)
    before = snapshot(now.optimizer)
    with pytest.raises(error, match=match):
        now.optimizer.step(now.game.loss())
    assert_same_bits(snapshot(now.optimizer), before)
    now.optimizer.solver = DirectSolver()
    assert_dense_step(info, now.optimizer, now.reference)


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


@each_start
@each_policy
@pytest.mark.parametrize("status", [Status.BREAKDOWN, Status.NON_FINITE], ids=lambda s: s.name)
@each_optimizer
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
@each_optimizer
def test_a_solve_that_runs_out_of_iterations_is_taken(info: OptimizerInfo, on_failure: str) -> None:
    now = setting(info, 0, solver=StatusSolver(Status.MAX_ITER, True), on_failure=on_failure)
    assert_dense_step(info, now.optimizer, now.reference)
    assert now.optimizer.last_step.taken
    assert now.optimizer.last_step.status is Status.MAX_ITER
    now.optimizer.solver = StatusSolver(Status.MAX_ITER, False)
    with pytest.warns(ConvergenceWarning, match="all its iterations"):
        assert_dense_step(info, now.optimizer, now.reference)


@each_start
@pytest.mark.parametrize("on_failure", ["fallback", "skip"])
@pytest.mark.parametrize("case", [*BAD_GRADIENTS, "product-nan"])
@each_optimizer
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


@each_policy
@each_optimizer
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
@each_optimizer
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
@each_optimizer
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
