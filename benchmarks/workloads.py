"""The games whose steps are timed."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.cifar10 import dcgan, resnet
from benchmarks.networks import SmallCritic, SmallGenerator, num_parameters, wasserstein_loss

LATENT_SIZE = 128


@dataclass(frozen=True)
class Play:
    """A game ready to be played.

    Attributes:
        min_player: the network that minimises the loss.
        max_player: the network that maximises it.
        draw: draws a batch with a given random generator.
        loss: returns the loss of a batch, with its graph.
    """

    min_player: nn.Module
    max_player: nn.Module
    draw: Callable[[torch.Generator], tuple[Tensor, ...]]
    loss: Callable[[tuple[Tensor, ...]], Tensor]

    def loss_of_part(self, batch: tuple[Tensor, ...], share: float) -> Tensor:
        """Return the loss of the first ``share`` of a batch, at least one entry."""
        if share == 1:
            return self.loss(batch)
        return self.loss(tuple(part[: max(1, round(share * len(part)))] for part in batch))

    def on(self, device: torch.device) -> "Play":
        """Return the game with its players and batches on ``device``."""
        self.min_player.to(device)
        self.max_player.to(device)
        return replace(self, draw=lambda random: tuple(t.to(device) for t in self.draw(random)))

    def losses(self, seed: int) -> Iterator[Tensor]:
        """Yield losses of new batches. Reusing a batch would overfit to it."""
        random = torch.Generator().manual_seed(seed)
        while True:
            yield self.loss(self.draw(random))


@dataclass(frozen=True)
class Workload:
    """A kind of game.

    Attributes:
        name: its name in tables.
        lr: the learning rate of both players.
        build: returns the game for a batch size.
        batch_size: the default batch size.
    """

    name: str
    build: Callable[[int], Play]
    batch_size: int = 64
    lr: float = 1e-4

    def start(self, batch_size: int | None = None) -> Play:
        """Return a game with the same initial weights each time."""
        torch.manual_seed(0)
        return self.build(self.batch_size if batch_size is None else batch_size)


def gan(
    generator: nn.Module, critic: nn.Module, batch_size: int, latent_size: int = LATENT_SIZE
) -> Play:
    """Return a Wasserstein game of image networks on random images [batch_size, 3, 32, 32]."""

    def draw(random: torch.Generator) -> tuple[Tensor, ...]:
        images = torch.rand(batch_size, 3, 32, 32, generator=random) * 2 - 1
        return images, torch.randn(batch_size, latent_size, generator=random)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        return wasserstein_loss(generator, critic, *batch)

    return Play(generator, critic, draw, loss)


def tanh_mlp(*sizes: int) -> nn.Sequential:
    """Return a fully connected network with tanh between its layers."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def poisson(batch_size: int, width: int = 50) -> Play:
    """Return the Poisson equation on a square as a game.

    One network is the solution u, the other bets on the residuals of ``laplace u = f`` inside and
    of u = 0 on the border, as in competitive physics-informed networks.

    References:
        Zeng et al. (2022). https://arxiv.org/abs/2204.11144
    """
    solution, stakes = tanh_mlp(2, width, width, width, 1), tanh_mlp(2, width, width, width, 2)

    def draw(random: torch.Generator) -> tuple[Tensor, ...]:
        inside = torch.rand(batch_size, 2, generator=random) * 4 - 2
        border = torch.rand(batch_size // 4, 2, generator=random) * 4 - 2
        side = torch.randint(2, (len(border), 1), generator=random)
        edge = torch.randint(2, (len(border), 1), generator=random) * 4.0 - 2
        return inside, border.scatter(1, side, edge)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        inside, border = batch[0].requires_grad_(), batch[1]
        (slope,) = torch.autograd.grad(solution(inside).sum(), inside, create_graph=True)
        laplacian = sum(
            torch.autograd.grad(slope[:, i].sum(), inside, create_graph=True)[0][:, i]
            for i in range(2)
        )
        residual = laplacian + 2 * torch.sin(inside[:, 0]) * torch.cos(inside[:, 1])
        return (stakes(inside)[:, 0] * residual).mean() + (
            stakes(border)[:, 1] * solution(border)[:, 0]
        ).mean()

    return Play(solution, stakes, draw, loss)


SMALL = Workload("small CNN", lambda n: gan(SmallGenerator(LATENT_SIZE), SmallCritic(), n))
SMALL_WITHOUT_BIAS = Workload(
    "small CNN, critic without last bias",
    lambda n: gan(SmallGenerator(LATENT_SIZE), SmallCritic(last_bias=False), n),
)
DCGAN = Workload("DCGAN", lambda n: gan(dcgan.Generator(LATENT_SIZE), dcgan.Critic(), n))
RESNET = Workload(
    "residual networks, width 1/4",
    lambda n: gan(resnet.Generator(LATENT_SIZE, width=0.25), resnet.Critic(width=0.25), n),
    batch_size=16,
)
POISSON = Workload("Poisson equation", poisson, batch_size=1024, lr=1e-3)

WORKLOADS = {
    "small": SMALL,
    "small-without-bias": SMALL_WITHOUT_BIAS,
    "dcgan": DCGAN,
    "resnet": RESNET,
    "poisson": POISSON,
}


def sizes(workload: Workload) -> dict[str, int]:
    """Return the numbers of parameters and the batch size, for the record."""
    play = workload.start()
    return {
        "min_parameters": num_parameters(play.min_player),
        "max_parameters": num_parameters(play.max_player),
        "batch_size": workload.batch_size,
    }
