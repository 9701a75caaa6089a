"""Savings of ``compopt.nn.fuse``: times of mixed products and whole steps, before and after.

Run ``python -m benchmarks.fused_layers``. Each measurement alternates between the two forms of one
network in one process, and ratios are of consecutive measurements.
"""

import copy
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import arguments, in_turns, ratios, show, spread, write_result
from benchmarks.networks import SmallCritic, SmallGenerator, random_batch, wasserstein_loss
from compopt import ACGD
from compopt.derivatives import differentiate
from compopt.game import Game
from compopt.nn import fuse


class DeepGenerator(nn.Sequential):
    """A DCGAN-like generator for 32 x 32 images, with batch normalization."""

    latent_size = 64

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(
                nn.Unflatten(1, (64, 1, 1)),
                nn.ConvTranspose2d(64, 128, 4, 1, 0, bias=False),
                nn.BatchNorm2d(128),
                nn.ReLU(),
                nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
                nn.BatchNorm2d(64),
                nn.ReLU(),
                nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False),
                nn.BatchNorm2d(32),
                nn.ReLU(),
                nn.ConvTranspose2d(32, 3, 4, 2, 1),
                nn.Tanh(),
            )
        )


class DeepCritic(nn.Sequential):
    """A DCGAN-like critic, with batch normalization."""

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(
                nn.Conv2d(3, 32, 4, 2, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(32, 64, 4, 2, 1, bias=False),
                nn.BatchNorm2d(64),
                nn.LeakyReLU(0.2),
                nn.Conv2d(64, 128, 4, 2, 1, bias=False),
                nn.BatchNorm2d(128),
                nn.LeakyReLU(0.2),
                nn.Flatten(),
                nn.Linear(2048, 1),
            )
        )


NETWORKS: dict[str, Callable[[], tuple[nn.Module, nn.Module]]] = {
    "small CIFAR-10 WGAN": lambda: (SmallGenerator(), SmallCritic()),
    "DCGAN with batch norm": lambda: (DeepGenerator(), DeepCritic()),
}


class Form:
    """One form of a pair of networks, with the functions to time."""

    def __init__(self, pair: tuple[nn.Module, nn.Module], batch_size: int) -> None:
        self.generator, self.critic = pair
        random = torch.Generator().manual_seed(1)
        latent_size = self.generator.latent_size
        self.images, self.noise = random_batch(batch_size, latent_size, random)
        players = list(self.generator.parameters()), list(self.critic.parameters())
        self._players = dict(zip(("min", "max"), players, strict=True))
        self._optimizer = ACGD(*players, lr=1e-4)
        gradients = differentiate(Game(self.loss()), self._players)
        self.mixed = gradients
        self._vectors = (
            torch.randn_like(gradients.grads["min"]),
            torch.randn_like(gradients.grads["max"]),
        )

    def loss(self) -> Tensor:
        """Return the loss."""
        return wasserstein_loss(self.generator, self.critic, self.images, self.noise)

    def gradients(self) -> None:
        """Run a forward pass and a first backward pass with a graph."""
        differentiate(Game(self.loss()), self._players)

    def into_critic(self) -> None:
        """Compute a product in the critic's space."""
        self.mixed.mixed_product("max", self._vectors[0])

    def into_generator(self) -> None:
        """Compute a product in the generator's space."""
        self.mixed.mixed_product("min", self._vectors[1])

    def step(self) -> None:
        """Take an optimizer step with a fixed number of products."""
        self._optimizer.step(self.loss())


MEASURED = {
    "loss and gradients": Form.gradients,
    "product into the generator": Form.into_generator,
    "product into the critic": Form.into_critic,
    "ACGD step": Form.step,
}


def measure(
    build: Callable[[], tuple[nn.Module, nn.Module]], rounds: int, batch_size: int
) -> dict[str, dict]:
    """Return medians of both forms and of the ratios, for each timed function."""
    torch.manual_seed(0)
    plain = build()
    fused = copy.deepcopy(plain)
    for network in fused:
        fuse(network)
    forms = {"plain": Form(plain, batch_size), "fused": Form(fused, batch_size)}
    rows = {}
    for name, work in MEASURED.items():
        works = {key: partial(work, form) for key, form in forms.items()}
        times = in_turns(works, rounds, warm_up=2, what=name)
        middle, low, high = spread(ratios(times["plain"], times["fused"]))
        rows[name] = {
            **{f"{key}_ms": 1e3 * statistics.median(values) for key, values in times.items()},
            **{"speedup": middle, "speedup_p20": low, "speedup_p80": high},
        }
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write a data file."""
    parser = arguments(__doc__, rounds=15)
    parser.add_argument("--batch-size", type=int, default=64, help="images in a batch")
    args = parser.parse_args(argv)
    sections = {
        title: measure(build, args.rounds, args.batch_size) for title, build in NETWORKS.items()
    }
    for title, rows in sections.items():
        cells = (
            (
                name,
                f"{row['plain_ms']:.1f}",
                f"{row['fused_ms']:.1f}",
                f"{row['speedup']:.2f} ({row['speedup_p20']:.2f}-{row['speedup_p80']:.2f})",
            )
            for name, row in rows.items()
        )
        show(title, ("", "torch's layers, ms", "fused, ms", "times as fast"), cells)
    data = {"batch_size": args.batch_size, "rounds": args.rounds, "sections": sections}
    write_result(args.out / "fused_layers.json", data)


if __name__ == "__main__":
    main()
