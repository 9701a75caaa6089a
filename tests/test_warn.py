"""Warnings point at the caller's line, whatever of torch wraps the call."""

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from covering import one_each
from games import QuadraticGame
from torch import Tensor, nn

from compopt import (
    CGD,
    GMRES,
    ConjugateGradient,
    ConvergenceWarning,
    PolymatrixCGD,
    StepWarning,
)
from compopt.distributed import unwrap
from compopt.distributed.data import UnwrapWarning
from compopt.optim.rivals import OGDA, SimultaneousDescentAscent
from compopt.penalties import CollapseMonitor, CollapseRule, Layers
from compopt.penalties.collapse import CollapseWarning

Optimizer = torch.optim.Optimizer


def line() -> int:
    """Return the number of the line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def unsolved(game: QuadraticGame) -> tuple[Optimizer, Any]:
    solver = ConjugateGradient(rtol=1e-12, max_iter=1)
    return CGD(game.min_params, game.max_params, lr=1.0, solver=solver), game.loss()


def not_finite(cls: Any, game: QuadraticGame) -> tuple[Optimizer, Any]:
    return cls(game.min_params, game.max_params), game.loss() * torch.nan


def independent(game: QuadraticGame) -> tuple[Optimizer, Any]:
    own = game.vector("max").square().sum()
    return CGD(game.min_params, game.max_params, solver=GMRES()), (game.loss(), own)


def of_many(game: QuadraticGame) -> tuple[Optimizer, Any]:
    loss = game.loss() * torch.nan
    return PolymatrixCGD([game.min_params, game.max_params]), [loss, -loss]


TROUBLE: dict[str, tuple[Callable[[QuadraticGame], tuple[Optimizer, Any]], type[Warning]]] = {
    "unsolved": (unsolved, ConvergenceWarning),
    "not-finite": (partial(not_finite, CGD), StepWarning),
    "not-finite-rival": (partial(not_finite, OGDA), StepWarning),
    "not-finite-descent-ascent": (partial(not_finite, SimultaneousDescentAscent), StepWarning),
    "independent": (independent, StepWarning),
    "many": (of_many, StepWarning),
}


def plainly(optimizer: Any, loss: Any) -> int:
    optimizer.step(loss)
    return line() - 1


def scheduled(optimizer: Any, loss: Any) -> int:
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    optimizer.step(loss)
    return line() - 1


def decorated(optimizer: Any, loss: Any) -> int:
    torch.no_grad()(optimizer.step)(loss)
    return line() - 1


def from_a_hook(optimizer: Any, loss: Any) -> int:
    """A module's forward hook is called by torch, and is the caller's code."""
    found = []

    def hook(module: nn.Module, args: object, output: Tensor) -> None:
        optimizer.step(loss)
        found.append(line() - 1)

    identity = nn.Identity()
    identity.register_forward_hook(hook)
    identity(torch.zeros(1))
    return found[0]


WAYS = (plainly, scheduled, decorated, from_a_hook)


@pytest.mark.parametrize(
    ("case", "way"),
    [case for shift in (0, 1) for case in one_each(list(TROUBLE), [*WAYS[shift:], *WAYS[:shift]])],
)
def test_steps_warn_at_the_line_of_the_call(case: str, way: Callable[..., int]) -> None:
    make, category = TROUBLE[case]
    optimizer, loss = make(QuadraticGame())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", category)
        expected = way(optimizer, loss)
    (warning,) = caught
    assert warning.category is category
    assert (warning.filename, warning.lineno) == (__file__, expected)


def test_a_scaler_steps_for_its_caller() -> None:
    game = QuadraticGame(torch.float32)
    optimizer, loss = unsolved(game)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer.backward(loss, scaler=scaler)
    with pytest.warns(ConvergenceWarning) as caught:
        scaler.step(optimizer)
    assert [warning.filename for warning in caught] == [__file__]


def test_each_place_is_told_once_by_default() -> None:
    """Python shows a warning once for a line; several lines with trouble are all shown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            for way in (plainly, scheduled):
                way(*unsolved(QuadraticGame()))
    assert len({warning.lineno for warning in caught}) == len(caught) == 2


class Wrapped(nn.parallel.DistributedDataParallel):
    """One without a process group, of which `unwrap` needs no more than its class."""

    def __init__(self, module: nn.Module) -> None:
        nn.Module.__init__(self)
        self.module = module


def test_unwrapping_warns_at_its_line() -> None:
    with pytest.warns(UnwrapWarning) as caught:
        unwrap(Wrapped(nn.Linear(1, 1)))
    assert [warning.filename for warning in caught] == [__file__]


def test_collapse_warns_at_its_line() -> None:
    critic = nn.Linear(4, 4)
    layers = Layers(kinds=("linear",))
    monitor = CollapseMonitor(critic, layers=layers, rule=CollapseRule(warm_up=0))
    with torch.no_grad():
        critic.weight.copy_(torch.eye(4))
    monitor.record(0)
    with torch.no_grad():
        critic.weight.mul_(torch.tensor([1.0, 1e-6, 1e-6, 1e-6]))
    with pytest.warns(CollapseWarning) as caught:
        torch.no_grad()(monitor.record)(1)
    assert {warning.filename for warning in caught} == {__file__}
