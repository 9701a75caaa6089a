"""Games and steps for the tests that need a device; on the CPU they show that the tests work."""

import copy
import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from compopt import ACGD, CGD, GMRES, ConjugateGradient
from compopt.distributed import Sharded
from compopt.kernels import use_backend
from compopt.nn import fuse


class DeviceGame:
    """A GAN of small images with all kinds of layers, on a device."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype = torch.float32, *, fused: bool = False
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.generator = nn.Sequential(
                nn.Linear(8, 64),
                nn.Unflatten(1, (4, 4, 4)),
                nn.ConvTranspose2d(4, 6, 4, 2, 1),
                nn.BatchNorm2d(6),
                nn.LeakyReLU(0.2),
                nn.Conv2d(6, 3, 3, 1, 1),
                nn.Tanh(),
            )
            self.critic = nn.Sequential(
                nn.Conv2d(3, 6, 4, 2, 1),
                nn.Softplus(),
                nn.Flatten(),
                nn.Linear(96, 40),
                nn.LayerNorm(40),
                nn.SiLU(),
                nn.Linear(40, 1),
            )
            real, noise = torch.randn(6, 16, 3, 8, 8), torch.randn(6, 16, 8)
        for network in (self.generator, self.critic):
            network.to(device, dtype)
            if fused:
                fuse(network)
        self.batches = [
            (a.to(device, dtype), b.to(device, dtype)) for a, b in zip(real, noise, strict=True)
        ]

    @property
    def players(self) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters of both players."""
        return list(self.generator.parameters()), list(self.critic.parameters())

    def loss(self, batch: int = 0) -> Tensor:
        """Return the zero-sum loss of logistic scores, in float32 at least."""
        real, noise = self.batches[batch % len(self.batches)]
        scores = self.critic(real), self.critic(self.generator(noise))
        wide = [score.to(torch.promote_types(score.dtype, torch.float32)) for score in scores]
        softplus = nn.functional.softplus
        return -softplus(-wide[0]).mean() - softplus(wide[1]).mean()

    def losses(self, batch: int = 0) -> tuple[Tensor, Tensor]:
        """Return a loss for each player that is not the other's negative."""
        loss = self.loss(batch)
        return loss, -loss + 0.1 * self.generator(self.batches[0][1]).square().mean()

    def flat(self) -> Tensor:
        """Return all parameters as one float64 vector on the host."""
        params = [param.detach().double().flatten().cpu() for p in self.players for param in p]
        return torch.cat(params)

    def moved_by(self, steps: Callable[["DeviceGame"], None]) -> Tensor:
        """Return how far steps move a copy of the game."""
        twin = copy.deepcopy(self)
        before = twin.flat()
        steps(twin)
        return twin.flat() - before


def fixed(count: int = 2) -> ConjugateGradient:
    """Return a solver of so many iterations."""
    return ConjugateGradient(rtol=0.0, max_iter=count)


Make = Callable[..., Any]

FORMS: dict[str, tuple[Make, float]] = {
    "ACGD": (ACGD, 0.1),
    "ACGD, warm": (partial(ACGD, warm_start=True), 0.1),
    "ACGD, tight": (partial(ACGD, solver=ConjugateGradient(rtol=1e-6, max_iter=200)), 1e-3),
    "ACGD, one": (partial(ACGD, solver=fixed(1)), 1e-3),
    "ACGD, two, warm": (partial(ACGD, solver=fixed(), warm_start=True), 1e-3),
    "ACGD, min": (partial(ACGD, solver=fixed(), solve_for="min"), 1e-3),
    "ACGD, alternate": (partial(ACGD, solver=fixed(), solve_for="alternate"), 1e-3),
    "ACGD, decay": (partial(ACGD, solver=fixed(), weight_decay=0.1, max_grad_norm=0.5), 1e-3),
    "ACGD, strength": (partial(ACGD, solver=fixed(), interaction=0.01), 1e-3),
    "ACGD, capturable": (partial(ACGD, solver=fixed(), capturable=True), 1e-3),
    "CGD": (partial(CGD, solver=fixed()), 1e-3),
    "CGD-box": (partial(CGD, solver=fixed(), mirror=("box", -20.0, 20.0)), 1e-3),
    "ACGD-box": (partial(ACGD, solver=fixed(), mirror=("box", -20.0, 20.0)), 1e-3),
}
"""Ways to step a zero-sum game, and by how much two backends may differ in what they move.

Those that stop at a tolerance may differ by it.
"""

PAIRS: dict[str, tuple[Make, float]] = {
    "CGD": (partial(CGD, solver=GMRES(rtol=1e-6, max_iter=40)), 1e-3),
    "ACGD": (partial(ACGD, solver=GMRES(rtol=1e-6, max_iter=40)), 1e-3),
}
"""Ways to step a game of two losses."""


def take(make: Make, game: DeviceGame, *, lr: Any = 1e-3, pair: bool = False, **kw: Any) -> None:
    """Take three steps."""
    optimizer = make(*game.players, lr=lr, **kw)
    for batch in range(3):
        optimizer.step(game.losses(batch) if pair else game.loss(batch))


def relative(actual: Tensor, truth: Tensor) -> float:
    """Return the relative error in the Euclidean norm; infinite if anything is not finite."""
    if not bool(torch.isfinite(actual).all()):
        return float("inf")
    wrong, norm = (torch.linalg.vector_norm(v) for v in (actual - truth, truth))
    assert norm > 0
    return float(wrong / norm)


@contextmanager
def on_side_stream(device: torch.device) -> Iterator[None]:
    """Run what is inside on a stream of its own, after what came before and before what follows."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


def steps(game: DeviceGame, backend: str, **options: Any) -> None:
    """Take three ACGD steps of two iterations, with layers of the backend as well."""
    optimizer = ACGD(*game.players, lr=1e-3, solver=fixed(), backend=backend, **options)
    with use_backend(backend):
        for batch in range(3):
            optimizer.step(game.loss(batch))


def rank_steps(
    rank: int, num_ranks: int, kind: str, sharded: bool, backend: str, folder: Path
) -> None:
    """Take steps as one rank of several, each on a device of its own, and save what they move."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=num_ranks,
        timeout=datetime.timedelta(seconds=60),
    )
    try:
        place = Sharded(dist.group.WORLD) if sharded else dist.group.WORLD
        moved = DeviceGame(device).moved_by(lambda game: steps(game, backend, process_group=place))
        torch.save(moved, folder / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()
