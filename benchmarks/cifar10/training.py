"""State of a cell: networks, optimizer, average and counters, and their step."""

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cifar10.averaging import ExponentialAverage
from benchmarks.cifar10.batches import Batches, derived_seed
from benchmarks.cifar10.config import RunConfig
from benchmarks.cifar10.errors import BenchmarkError, Diverged
from benchmarks.cifar10.game import GanGame
from benchmarks.cifar10.losses import LOSSES
from benchmarks.cifar10.networks import build_networks
from benchmarks.cifar10.optimizers import STEPPERS
from benchmarks.cifar10.parallel import Ranks
from benchmarks.cifar10.terms import build_term, dropout_of
from compopt.penalties import CollapseMonitor, CollapseWarning


@dataclass
class Totals:
    """Running totals of a cell.

    Attributes:
        seconds: time of training without evaluation, checkpoints and logs; processor time on a CPU.
        gradient_calls: number of gradients of one player, including those of terms.
        mixed_products: number of products with the mixed second derivative.
        num_iter: number of solver iterations.
    """

    seconds: float = 0.0
    gradient_calls: int = 0
    mixed_products: int = 0
    num_iter: int = 0


class Training:
    """The state that a step changes.

    The weights after any step depend only on configuration, images and number of threads: all
    random numbers are drawn from the seed and the step number.

    Args:
        config: configuration of the run.
        images: training images [n, 3, 32, 32] uint8.
        ranks: the processes that share the cell.

    Raises:
        BenchmarkError: if the configuration does not fit the images.
    """

    def __init__(self, config: RunConfig, images: Tensor, ranks: Ranks | None = None) -> None:
        ranks = ranks or Ranks()
        if len(images) < config.batch_size:
            raise BenchmarkError(
                f"`batch_size` must be at most the number of images, {len(images)}, got "
                f"{config.batch_size}."
            )
        if config.batch_size % ranks.size:
            raise BenchmarkError(
                f"`batch_size` must be a multiple of the {ranks.size} processes, got "
                f"{config.batch_size}."
            )
        self.config = config
        self.step = 0
        self.totals = Totals()
        self.value = torch.zeros(())
        self._rank = ranks.rank
        generator, critic = build_networks(
            config.network, config.seed, dropout=dropout_of(config.term)
        )
        # Seed the initial vectors of spectral normalization.
        torch.manual_seed(derived_seed("term", config.seed))
        self.term = build_term(config.term, critic)
        self.generator, self.critic = generator.to(config.device), critic.to(config.device)
        self.game = GanGame(self.generator, self.critic, LOSSES[config.loss], self.term)
        self.stepper = STEPPERS[config.optimizer.kind](self.game, config.optimizer, ranks.group)
        self.ema = ExponentialAverage(
            self.generator, math.exp(-config.batch_size / config.evaluation.ema_images)
        )
        self.monitor = CollapseMonitor(self.critic)
        self.batches = Batches(
            images,
            batch_size=config.batch_size,
            latent_size=config.network.latent_size,
            seed=config.seed,
            device=config.device,
            part=(ranks.rank, ranks.size),
        )

    @property
    def cost(self) -> float:
        """Cost of the steps so far, in the unit of the budget."""
        cost = self.config.cost
        return self.step * cost.step + self.totals.mixed_products * cost.product

    @property
    def share(self) -> float:
        """Used share of the steps or the budget, whichever is larger."""
        config = self.config
        shares = [self.step / config.steps]
        shares += [] if config.budget is None else [self.cost / config.budget]
        return min(1.0, max(shares))

    @property
    def points(self) -> int:
        """Number of evaluation points of the budget that have been reached."""
        budget, points = self.config.budget, self.config.evaluation.points
        return 0 if budget is None else min(points, int(points * self.cost / budget))

    def advance(self) -> None:
        """Take one step."""
        if self.step:
            # Project here and not at the end of a step, so that spectra are recorded first.
            self.term.after_step()
        # Seed the random numbers of dropout.
        torch.manual_seed(derived_seed("step", self.config.seed, self.step, self._rank))
        first = self.step * self.stepper.draws
        draws = [self.batches.draw(first + index) for index in range(self.stepper.draws)]
        done = self.stepper.step(draws)
        self.ema.update(self.generator)
        self.step += 1
        self.value = done.value
        self.totals.gradient_calls += done.gradient_calls
        self.totals.mixed_products += done.mixed_products
        self.totals.num_iter += done.num_iter

    def check(self) -> None:
        """Raise Diverged if the game's value or a weight is not finite."""
        if not torch.isfinite(self.value):
            raise Diverged(f"The value of the game is {self.value.item()} at step {self.step}.")
        for name, module in self.modules().items():
            if not all(torch.isfinite(param).all() for param in module.parameters()):
                raise Diverged(f"Weights of the {name} are not finite at step {self.step}.")

    def modules(self) -> dict[str, nn.Module]:
        """Return both networks and the averaged generator."""
        return {"generator": self.generator, "critic": self.critic, "ema": self.ema.module}

    def spectra(self) -> dict[str, Any]:
        """Record the critic's spectra; return them with new alarms."""
        with warnings.catch_warnings():
            # Alarms are in the log and the report.
            warnings.simplefilter("ignore", CollapseWarning)
            alarms = self.monitor.record(self.step)
        layers = {name: spectra[-1].tolist() for name, spectra in self.monitor.history.items()}
        return {"layers": layers, "alarms": [vars(alarm) for alarm in alarms]}

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later steps depend on, and the totals."""
        return {
            "step": self.step,
            "totals": asdict(self.totals),
            "networks": {name: module.state_dict() for name, module in self.modules().items()},
            "optimizer": self.stepper.state_dict(),
            "term": self.term.state_dict(),
            "monitor": self.monitor.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.step = state["step"]
        self.totals = Totals(**state["totals"])
        for name, module in self.modules().items():
            module.load_state_dict(state["networks"][name])
        self.stepper.load_state_dict(state["optimizer"])
        self.term.load_state_dict(state["term"])
        self.monitor.load_state_dict(state["monitor"])
