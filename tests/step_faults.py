"""Faults in the losses, products and solvers of a step, and a game to have them in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from dense_steps import DenseReference, assert_dense_step
from games import QuadraticGame
from optimizer_registry import OptimizerInfo
from torch import Tensor

from compopt import ConjugateGradient, DirectSolver

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


class _FaultyGradient(_Faulty):
    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> tuple[Tensor, None]:
        return ctx.fault(vector), None


def infinite_slope(param: Tensor) -> Tensor:
    """Return zero with an infinite gradient."""
    return (param - param.detach()).sum().sqrt()


# Each makes something not finite before the solve: the loss, a gradient, a penalty's gradient.
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

SOLVERS = {
    "cg": ConjugateGradient(rtol=1e-13, max_iter=60),
    "cg-one-iteration": ConjugateGradient(rtol=0.0, max_iter=1),
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


STARTS = {"first-step": 0, "later-step": 3}
PLACES = ("first", "last")
each_policy = pytest.mark.parametrize("on_failure", ON_FAILURE)
