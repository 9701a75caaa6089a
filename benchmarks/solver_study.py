"""Ways to save products in a solve, and the accuracy that a solve needs.

Run ``python -m benchmarks.solver_study --data DIR``. A DCGAN of reduced width is trained on
CIFAR-10 by exactly solved ACGD steps. At each of the last steps the same system is also solved in
other ways (:mod:`benchmarks.solve_ways`), and their products are counted; no time is measured.
Compare solver errors with the distance of two exact steps on different batches from the same
weights.
"""

import copy
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from benchmarks.cifar10 import dcgan
from benchmarks.cifar10.data import load_images, to_float
from benchmarks.cifar10.losses import LOSSES
from benchmarks.harness import arguments, picture, show, write_result
from benchmarks.solve_ways import Study
from compopt import ACGD, ConjugateGradient
from compopt.derivatives import Derivatives, differentiate
from compopt.game import Game

WIDTH, BATCH_SIZE, LATENT_SIZE = 0.25, 64, 128
PARTS = {"mixed block from half of the batch": 2, "mixed block from a quarter of it": 4}
LOSSES_TRIED, LEARNING_RATES = ("wgan", "bce"), (1e-4, 1e-3)

KINDS = {
    "cold": ("cold", "o"),
    "first guess from earlier moves": ("move", "^"),
    "earlier directions recycled": ("Ritz", "s"),
    "diagonal preconditioner": ("diagonal", "D"),
    "mixed block from a part of the batch": ("mixed block", "v"),
}
"""Ways of solving in the picture: a word of their names, and a mark."""

Batch = tuple[Tensor, Tensor]


def batches(images: Tensor) -> Iterator[Batch]:
    """Yield real images [n, 3, 32, 32] in (-1, 1) and noise."""
    random = torch.Generator().manual_seed(1)
    while True:
        index = torch.randint(len(images), (BATCH_SIZE,), generator=random)
        yield to_float(images[index]), torch.randn(BATCH_SIZE, LATENT_SIZE, generator=random)


class Training:
    """A GAN trained by exact steps."""

    def __init__(self, images: Tensor, loss: str, lr: float) -> None:
        torch.manual_seed(0)
        self.generator = dcgan.Generator(LATENT_SIZE, width=WIDTH)
        self.critic = dcgan.Critic(width=WIDTH)
        self.params = [list(net.parameters()) for net in (self.generator, self.critic)]
        self.solver = Study()
        self.optimizer = ACGD(*self.params, lr, solver=self.solver)
        self._batches = batches(images)
        self._loss = LOSSES[loss].value
        self._last_gradient: Tensor | None = None

    def value(self, batch: Batch) -> Tensor:
        """Return the loss of a batch, with its graph."""
        real, noise = batch
        return self._loss(self.critic(real), self.critic(self.generator(noise)))

    def step(self, *, studied: bool) -> None:
        """Take an exact step; if ``studied``, also compare the ways of solving."""
        batch = next(self._batches)
        if studied:
            # Runs before the step, because it moves the weights and restores them.
            self._compare_batches(batch)
        self.solver.parts = self._parts(batch) if studied else None
        self.optimizer.step(self.value(batch))

    def _parts(self, batch: Batch) -> dict[str, Derivatives]:
        losses = {name: self.value(self._share(batch, n)) for name, n in PARTS.items()}
        players = dict(zip(("min", "max"), self.params, strict=True))
        return {n: differentiate(Game(x), players) for n, x in losses.items()}

    @staticmethod
    def _share(batch: Batch, divisor: int) -> Batch:
        real, noise = batch
        return real[: len(real) // divisor], noise[: len(noise) // divisor]

    def _compare_batches(self, batch: Batch) -> None:
        """Record the distances of steps and gradients on two batches from the same weights."""
        state = copy.deepcopy(self.optimizer.state_dict())
        pair = next(self._batches), next(self._batches)
        one, other = (self._exact_step(state, self.value(b)) for b in pair)
        apart = torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(one)
        self.solver.record.add("1e-06 | exact, on another batch", 0, float(apart))
        here, there = self._gradient(batch), self._gradient(pair[0])
        record = self.solver.record
        record.note("gradients of two batches apart", _distance(here, there))
        if self._last_gradient is not None:
            record.note(
                "gradients of two successive steps apart", _distance(here, self._last_gradient)
            )
        self._last_gradient = here

    def _gradient(self, batch: Batch) -> Tensor:
        grads = torch.autograd.grad(self.value(batch), [p for own in self.params for p in own])
        return torch.cat([grad.flatten() for grad in grads])

    def _exact_step(self, state: dict, loss: Tensor) -> Tensor:
        """Return the parameter change of the exact step on ``loss``, without taking it."""
        every = [param for own in self.params for param in own]
        before = [param.detach().clone() for param in every]
        solver = ConjugateGradient(rtol=1e-6, max_iter=200, check_last=True)
        exact = ACGD(*self.params, solver=solver)
        exact.load_state_dict(state)
        exact.step(loss)
        with torch.no_grad():
            moves = [(p - old).flatten() for p, old in zip(every, before, strict=True)]
            for param, old in zip(every, before, strict=True):
                param.copy_(old)
        return torch.cat(moves)


def _distance(one: Tensor, other: Tensor) -> float:
    """Return ``|one - other|`` relative to the root of ``|one|^2 + |other|^2``."""
    total = torch.linalg.vector_norm(torch.cat([one, other]))
    return float(torch.linalg.vector_norm(one - other) / total)


def study(images: Tensor, loss: str, lr: float, steps: int, studied: int) -> dict[str, dict]:
    """Train; return mean products and median error of each way of solving, and other medians."""
    training = Training(images, loss, lr)
    for step in track(range(steps), description=f"{loss}, lr {lr:g}"):
        training.step(studied=step >= steps - studied)
    record = training.solver.record
    return {
        "ways": {
            name: {
                "mean_products": statistics.mean(record.products[name]),
                "median_error": statistics.median(record.errors[name]),
            }
            for name in record.products
        },
        "figures": {name: statistics.median(found) for name, found in record.figures.items()},
    }


def draw(settings: dict[str, dict], path: Path) -> None:
    """Plot error against products, one panel per setting, one mark per way of solving."""
    with picture(path, (11, 8), rows=2, columns=2) as (_, axes):
        _draw(settings, axes)


def _draw(settings: dict[str, dict], axes: Any) -> None:
    for axis, (name, setting) in zip(axes.flat, settings.items(), strict=False):
        ways = setting["ways"]
        for color, (kind, (word, marker)) in enumerate(KINDS.items()):
            points = [
                (row["mean_products"], row["median_error"])
                for way, row in ways.items()
                if word in way.split(" | ")[1] and row["median_error"] > 0
            ]
            if points:
                x, y = zip(*points, strict=True)
                axis.scatter(x, y, marker=marker, color=f"C{color}", label=kind)
        noise = ways["1e-06 | exact, on another batch"]["median_error"]
        axis.axhline(noise, color="0.5", linestyle="--")
        place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
        axis.annotate("exact, on another batch", (1, noise), **place)
        axis.set(title=name, yscale="log", xlabel="products a step", ylabel="error of the move")
    axes[0, 0].legend(frameon=False)


def main(argv: list[str] | None = None) -> None:
    """Run the study for two losses and two learning rates; write a data file and a picture."""
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--steps", type=int, default=112)
    parser.add_argument("--studied", type=int, default=12, help="how many of the last are studied")
    args = parser.parse_args(argv)
    images = load_images(args.data)
    data: dict[str, object] = {"data": images.describe()}
    settings: dict[str, dict] = {}
    data |= {"steps": args.steps, "studied": args.studied, "width": WIDTH, "batch_size": BATCH_SIZE}
    data["settings"] = settings
    for loss in LOSSES_TRIED:
        for lr in LEARNING_RATES:
            name = f"{loss}, lr {lr:g}"
            settings[name] = study(images.train, loss, lr, args.steps, args.studied)
            rows = (
                (*way.split(" | "), f"{row['mean_products']:.1f}", f"{row['median_error']:.1e}")
                for way, row in settings[name]["ways"].items()
            )
            show(name, ("rtol", "way of solving", "products a step", "error of the move"), rows)
            print(settings[name]["figures"])
            # Write after each setting, so that an interrupted run keeps finished ones.
            write_result(args.out / "solver_study.json", data)
            draw(settings, args.out / "solver_study.png")


if __name__ == "__main__":
    main()
