"""The optimizers behind one interface: a step of the game on the draws that it needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from benchmarks.cifar10.batches import Draw
from benchmarks.cifar10.config import OptimizerConfig
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.game import GanGame, Objectives
from compopt import ACGD, CGD, ConjugateGradient, Game
from compopt.optim.rivals import ExtraAdam, OptimisticAdam
from compopt.optim.rivals.base import FieldOptimizer

Average = Callable[[Sequence[Tensor]], None]
"""Averages gradients over processes, in place."""


@dataclass(frozen=True)
class Step:
    """What a step did.

    Attributes:
        value: of the game before the step, detached; what the critic raises.
        gradient_calls: gradients of one player, those of its terms among them.
        mixed_products: products with the mixed second derivative.
        num_iter: iterations of the solver.
    """

    value: Tensor
    gradient_calls: int
    mixed_products: int = 0
    num_iter: int = 0


class GameStepper(ABC):
    """An optimizer of both players.

    Args:
        game: what is played.
        config: the settings.
        average: of gradients over processes; None for one process.
    """

    draws: int = 1
    """How many draws a step takes."""
    averages: bool = True
    """Whether a step can be divided among processes."""

    def __init__(
        self, game: GanGame, config: OptimizerConfig, average: Average | None = None
    ) -> None:
        self.game = game
        self.config = config
        self.players: dict[str, list[nn.Parameter]] = {
            "generator": list(game.generator.parameters()),
            "critic": list(game.critic.parameters()),
        }
        self._average = average
        if average is not None and not self.averages:
            raise BenchmarkError(
                f"{config.kind} does not run on several processes: its gradients are not averaged "
                "over them. Start one process per cell."
            )
        self.optimizers = self._build()

    @property
    def lr_critic(self) -> float:
        """The critic's learning rate."""
        return self.config.lr * self.config.lr_ratio

    @abstractmethod
    def _build(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers by name."""

    @abstractmethod
    def step(self, draws: Sequence[Draw]) -> Step:
        """Take one step of the generator, and those of the critic that go with it."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all optimizers."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from that state."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])

    def _differentiate(self, objective: Tensor, player: str) -> None:
        """Put the gradient of what ``player`` lowers into ``.grad``."""
        self._assign(player, torch.autograd.grad(objective, self.players[player]))

    def _assign(self, player: str, grads: Sequence[Tensor]) -> None:
        if self._average is not None:
            self._average(grads)
        for param, grad in zip(self.players[player], grads, strict=True):
            param.grad = grad


class _AdamFamily(GameStepper):
    make: Callable[..., torch.optim.Optimizer] = torch.optim.Adam

    def _build(self) -> dict[str, torch.optim.Optimizer]:
        rates = {"generator": self.config.lr, "critic": self.lr_critic}
        eps = 1e-8 if self.config.eps is None else self.config.eps
        return {
            player: type(self).make(params, lr=rates[player], betas=self.config.betas, eps=eps)
            for player, params in self.players.items()
        }

    def _differentiate_both(self, objectives: Objectives) -> None:
        """Put both gradients into ``.grad``, in a zero-sum game from one backward pass."""
        generator, critic = self.players["generator"], self.players["critic"]
        if objectives.generator is None:
            both = torch.autograd.grad(
                objectives.value, [*generator, *critic], retain_graph=self._has_terms(objectives)
            )
            of_generator = list(both[: len(generator)])
            of_value = both[len(generator) :]
        else:
            of_generator = list(
                torch.autograd.grad(objectives.generator, generator, retain_graph=True)
            )
            of_value = torch.autograd.grad(
                objectives.value, critic, retain_graph=self._has_terms(objectives)
            )
        # The critic raises the value.
        of_critic = [-grad for grad in of_value]
        _add_gradient(of_generator, objectives.min_penalty, generator)
        _add_gradient(of_critic, objectives.max_penalty, critic)
        self._assign("generator", of_generator)
        self._assign("critic", of_critic)

    def _has_terms(self, objectives: Objectives) -> bool:
        return objectives.min_penalty is not None or objectives.max_penalty is not None

    def _calls(self) -> int:
        return 2 + sum(self.game.term.calls)

    def _move(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.step()


def _add_gradient(
    grads: list[Tensor], penalty: Tensor | None, params: Sequence[nn.Parameter]
) -> None:
    if penalty is None:
        return
    extra = torch.autograd.grad(penalty, params, retain_graph=True, allow_unused=True)
    for index, grad in enumerate(extra):
        if grad is not None:
            grads[index] = grads[index] + grad


class AdamSimultaneous(_AdamFamily):
    """Adam for each player, both moving at once from one evaluation."""

    def step(self, draws: Sequence[Draw]) -> Step:
        """Take one step."""
        objectives = self.game.both(draws[0])
        self._differentiate_both(objectives)
        self._move()
        return Step(objectives.value.detach(), self._calls())


class AdamAlternating(_AdamFamily):
    """The critic's steps, each on a draw of its own, then the generator's on new noise."""

    @property
    def draws(self) -> int:  # type: ignore[override]
        """One for each step of the critic."""
        return self.config.critic_steps

    def step(self, draws: Sequence[Draw]) -> Step:
        """Take the critic's steps and one of the generator."""
        value = torch.empty(0)
        for draw in draws:
            objective, value = self.game.for_critic(draw)
            self._differentiate(objective, "critic")
            self.optimizers["critic"].step()
        self._differentiate(self.game.for_generator(draws[-1]), "generator")
        self.optimizers["generator"].step()
        of_critic, of_generator = self.game.term.calls
        return Step(value, len(draws) * (1 + of_critic) + 1 + of_generator)


class _Field(GameStepper):
    """An optimizer of the package that evaluates the game once for each draw."""

    averages = False
    make: Callable[..., FieldOptimizer]

    def _build(self) -> dict[str, torch.optim.Optimizer]:
        players = self.players["generator"], self.players["critic"]
        rates = self.config.lr, self.lr_critic
        eps = 1e-8 if self.config.eps is None else self.config.eps
        return {"both": type(self).make(*players, lr=rates, betas=self.config.betas, eps=eps)}

    def step(self, draws: Sequence[Draw]) -> Step:
        """Take one step."""
        optimizer = self.optimizers["both"]
        assert isinstance(optimizer, FieldOptimizer)
        remaining, values = iter(draws), []

        def closure() -> Game:
            objectives = self.game.both(next(remaining))
            values.append(objectives.value.detach())
            penalties = objectives.min_penalty, objectives.max_penalty
            if objectives.generator is None:
                return Game(objectives.value, *penalties)
            return Game(objectives.generator, *penalties, max_loss=-objectives.value)

        optimizer.step(closure)
        return Step(values[-1], len(values) * (2 + sum(self.game.term.calls)))


class ExtraAdamStepper(_Field):
    """Both players look ahead on one draw, and move with the gradients found there on another."""

    make = ExtraAdam
    draws = 2


class OptimisticAdamStepper(_Field):
    """Optimistic Adam, both players moving at once."""

    make = OptimisticAdam


class _Competitive(GameStepper):
    @property
    def _group(self) -> "distributed.ProcessGroup | None":
        """The processes that share a step: these optimizers average gradients and products."""
        return None if self._average is None else distributed.group.WORLD

    @property
    def _interaction(self) -> float | None:
        # None is the learning rate, whatever a schedule makes of it.
        return None if self.config.interaction == 1 else self.config.interaction * self.config.lr

    def _solver(self) -> ConjugateGradient:
        return ConjugateGradient(rtol=self.config.rtol, max_iter=self.config.max_iter)

    def step(self, draws: Sequence[Draw]) -> Step:
        """Take one step."""
        optimizer = self.optimizers["both"]
        assert isinstance(optimizer, ACGD | CGD)
        objectives = self.game.both(draws[0])
        share = self.config.curvature_share
        value = optimizer.step(
            objectives.value,
            min_penalty=objectives.min_penalty,
            max_penalty=objectives.max_penalty,
            curvature_loss=None if share == 1 else self.game.value(draws[0].part(share)),
        )
        report = optimizer.last_step
        assert value is not None
        assert report is not None
        # The loss for the curvature is differentiated as well.
        calls = 2 + 2 * (share < 1) + sum(self.game.term.calls)
        return Step(value, calls, report.num_hvp, report.num_iter)


class CgdStepper(_Competitive):
    """Competitive gradient descent."""

    def _build(self) -> dict[str, torch.optim.Optimizer]:
        optimizer = CGD(
            self.players["generator"],
            self.players["critic"],
            lr=(self.config.lr, self.lr_critic),
            interaction=self._interaction,
            solver=self._solver(),
            process_group=self._group,
        )
        return {"both": optimizer}


class AcgdStepper(_Competitive):
    """Adaptive competitive gradient descent."""

    def _build(self) -> dict[str, torch.optim.Optimizer]:
        optimizer = ACGD(
            self.players["generator"],
            self.players["critic"],
            lr=(self.config.lr, self.lr_critic),
            beta=self.config.beta,
            eps=1e-5 if self.config.eps is None else self.config.eps,
            interaction=self._interaction,
            solver=self._solver(),
            process_group=self._group,
        )
        return {"both": optimizer}


STEPPERS: dict[str, type[GameStepper]] = {
    "adam-simultaneous": AdamSimultaneous,
    "adam-alternating": AdamAlternating,
    "extra-adam": ExtraAdamStepper,
    "optimistic-adam": OptimisticAdamStepper,
    "cgd": CgdStepper,
    "acgd": AcgdStepper,
}
