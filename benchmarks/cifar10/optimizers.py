"""Optimizers with one interface: a step of the game on the draws that it needs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cifar10.batches import Draw
from benchmarks.cifar10.errors import require
from benchmarks.cifar10.game import GanGame, value_of
from compopt import ACGD, CGD, ConjugateGradient, Game
from compopt._typing import Player
from compopt.derivatives import differentiate
from compopt.distributed import placement_of
from compopt.game import AnyGame
from compopt.optim.players import ProcessGroup, TwoPlayerOptimizer
from compopt.optim.rivals import ExtraAdam, OptimisticAdam


@dataclass
class OptimizerConfig:
    """An optimizer and its settings. Settings of other kinds are ignored.

    Attributes:
        kind: a key of :data:`STEPPERS`.
        lr: learning rate of the generator.
        lr_ratio: ratio of the critic's learning rate to the generator's.
        betas: betas of the Adam family.
        eps: None for the optimizer's default.
        critic_steps: critic steps of "adam-alternating" for each step of the generator.
        beta: beta of "acgd".
        rtol: relative residual at which "cgd" and "acgd" stop their solver.
        max_iter: maximum number of solver iterations.
        curvature_share: share of the batch from which "cgd" and "acgd" take second derivatives.
        interaction: step size of the interaction of "cgd" and "acgd", as a multiple of ``lr``; 0 is
            the same step without interaction, as a control.
    """

    kind: str = "acgd"
    lr: float = 1e-4
    lr_ratio: float = 1.0
    betas: tuple[float, float] = (0.5, 0.99)
    eps: float | None = None
    critic_steps: int = 1
    beta: float = 0.99
    rtol: float = 1e-2
    max_iter: int = 20
    curvature_share: float = 1.0
    interaction: float = 1.0

    def __post_init__(self) -> None:
        # Values from a file arrive as a list.
        self.betas = (float(self.betas[0]), float(self.betas[1]))
        require(self, "optimizer.kind", self.kind in STEPPERS, f"one of {[*STEPPERS]}")
        require(self, "optimizer.lr", self.lr > 0, "positive")
        require(self, "optimizer.lr_ratio", self.lr_ratio > 0, "positive")
        require(self, "optimizer.betas", all(0 <= b < 1 for b in self.betas), "in [0, 1)")
        require(self, "optimizer.curvature_share", 0 < self.curvature_share <= 1, "in (0, 1]")
        require(self, "optimizer.interaction", self.interaction >= 0, "0 or positive")
        require(
            self,
            "optimizer.interaction",
            self.interaction == 1 or self.is_competitive,
            f"1 for {self.kind}, which has no interaction",
        )
        require(self, "optimizer.critic_steps", self.critic_steps >= 1, "1 or more")
        require(
            self,
            "optimizer.critic_steps",
            self.critic_steps == 1 or self.kind == "adam-alternating",
            f"1 for {self.kind}; only adam-alternating takes several",
        )

    @property
    def is_competitive(self) -> bool:
        """True if a step takes the other player's reaction into account."""
        return issubclass(STEPPERS[self.kind], CgdStepper)


@dataclass(frozen=True)
class Step:
    """Value and cost of a step.

    Attributes:
        value: value of the game before the step, detached; the critic maximises it.
        gradient_calls: number of gradients of one player, including those of its terms.
        mixed_products: number of products with the mixed second derivative.
        num_iter: number of solver iterations.
    """

    value: Tensor
    gradient_calls: int
    mixed_products: int = 0
    num_iter: int = 0


class GameStepper(ABC):
    """An optimizer of both players.

    Args:
        game: the game to play.
        config: the settings.
        process_group: processes that share each step, as in :class:`compopt.CGD`.
    """

    draws: int = 1
    """How many draws a step takes."""

    def __init__(
        self, game: GanGame, config: OptimizerConfig, process_group: ProcessGroup = None
    ) -> None:
        self.game = game
        self.config = config
        self.params: dict[Player, list[nn.Parameter]] = {
            "min": list(game.generator.parameters()),
            "max": list(game.critic.parameters()),
        }
        self.rates: dict[Player, float] = {"min": config.lr, "max": config.lr * config.lr_ratio}
        self.optimizers = self._build(process_group)

    @abstractmethod
    def _build(self, process_group: ProcessGroup) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers by name."""

    @abstractmethod
    def step(self, draws: Sequence[Draw]) -> Step:
        """Take one step of the generator, and the corresponding steps of the critic."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all optimizers."""
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])

    def _calls(self) -> int:
        return 2 + sum(self.game.term.calls)


class AdamSimultaneous(GameStepper):
    """Adam for each player; both move simultaneously after one evaluation."""

    def _build(self, process_group: ProcessGroup) -> dict[str, torch.optim.Optimizer]:
        self._placement = placement_of(process_group)
        eps = 1e-8 if self.config.eps is None else self.config.eps
        return {
            player: torch.optim.Adam(
                params, lr=self.rates[player], betas=self.config.betas, eps=eps
            )
            for player, params in self.params.items()
        }

    def step(self, draws: Sequence[Draw]) -> Step:
        """Take one step."""
        game = self.game.both(draws[0])
        self._move(game, "min", "max")
        return Step(value_of(game), self._calls())

    def _move(self, game: AnyGame[Player], *players: Player) -> None:
        params = {player: self.params[player] for player in players}
        found = differentiate(game, params, placement=self._placement, second_order=False)
        for player, grad in found.grads.items():
            pieces = self._placement.whole(params[player], found.layouts[player], grad)
            for param, piece in zip(params[player], pieces, strict=True):
                param.grad = piece
            self.optimizers[player].step()


class AdamAlternating(AdamSimultaneous):
    """The critic's steps, each on its own draw, then the generator's on new noise."""

    @property
    def draws(self) -> int:  # type: ignore[override]
        """Number of draws: one for each step of the critic."""
        return self.config.critic_steps

    def step(self, draws: Sequence[Draw]) -> Step:
        """Take the critic's steps and one of the generator."""
        value = torch.empty(0)
        for draw in draws:
            game, value = self.game.for_critic(draw)
            self._move(game.of("max"), "max")
        self._move(self.game.for_generator(draws[-1]).of("min"), "min")
        of_critic, of_generator = self.game.term.calls
        return Step(value, len(draws) * (1 + of_critic) + 1 + of_generator)


class _Together(GameStepper):
    """An optimizer of this package. It evaluates the game once for each draw."""

    make: Callable[..., TwoPlayerOptimizer]

    def _settings(self) -> dict[str, Any]:
        eps = 1e-8 if self.config.eps is None else self.config.eps
        return {"betas": self.config.betas, "eps": eps}

    def _build(self, process_group: ProcessGroup) -> dict[str, torch.optim.Optimizer]:
        rates = (self.rates["min"], self.rates["max"])
        settings = {"lr": rates, "process_group": process_group, **self._settings()}
        return {"both": type(self).make(*self.params.values(), **settings)}

    def step(self, draws: Sequence[Draw]) -> Step:
        """Take one step."""
        remaining, values = iter(draws), []

        def closure() -> Game:
            game = self._evaluate(next(remaining))
            values.append(value_of(game))
            return game

        self.optimizers["both"].step(closure)  # type: ignore[arg-type]
        return Step(values[-1], len(values) * self._calls())

    def _evaluate(self, draw: Draw) -> Game:
        return self.game.both(draw)


class ExtraAdamStepper(_Together):
    """ExtraAdam: both players extrapolate on one draw, and move with gradients on another."""

    make = ExtraAdam
    draws = 2


class OptimisticAdamStepper(_Together):
    """Optimistic Adam; both players move simultaneously."""

    make = OptimisticAdam


class CgdStepper(_Together):
    """Competitive gradient descent."""

    make = CGD

    def _settings(self) -> dict[str, Any]:
        config = self.config
        # None follows the learning rate, also under a schedule.
        interaction = None if config.interaction == 1 else config.interaction * config.lr
        solver = ConjugateGradient(rtol=config.rtol, max_iter=config.max_iter)
        return {"interaction": interaction, "solver": solver}

    def _evaluate(self, draw: Draw) -> Game:
        share = self.config.curvature_share
        part = None if share == 1 else self.game.value(draw.part(share))
        return self.game.both(draw, curvature_loss=part)

    def step(self, draws: Sequence[Draw]) -> Step:
        """Take one step."""
        done = super().step(draws)
        optimizer = self.optimizers["both"]
        assert isinstance(optimizer, CGD | ACGD)
        report = optimizer.last_step
        assert report is not None
        # With a curvature loss, its gradients for both players are computed too.
        calls = done.gradient_calls + 2 * (self.config.curvature_share < 1)
        return Step(done.value, calls, report.num_hvp, report.num_iter)


class AcgdStepper(CgdStepper):
    """Adaptive competitive gradient descent."""

    make = ACGD

    def _settings(self) -> dict[str, Any]:
        eps = 1e-5 if self.config.eps is None else self.config.eps
        return {**super()._settings(), "beta": self.config.beta, "eps": eps}


STEPPERS: dict[str, type[GameStepper]] = {
    "adam-simultaneous": AdamSimultaneous,
    "adam-alternating": AdamAlternating,
    "extra-adam": ExtraAdamStepper,
    "optimistic-adam": OptimisticAdamStepper,
    "cgd": CgdStepper,
    "acgd": AcgdStepper,
}
"""All optimizers by the name that protocols call them."""
