"""How many modes of a Gaussian mixture a GAN finds without any regularization.

``--modes ring`` is eight Gaussians on a circle, ``--modes two`` the two of the CGD paper (with
``--loss bce`` there). Both optimizers train the same networks from the same weights on the same
batches. Neither critic is clipped, penalised or trained for extra steps.

Written to ``--out``: samples over training, and the share of modes that they cover.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from two_players import LOSSES, mlp, take_step, two_groups

from compopt import ACGD

NOISE, WIDTH, BATCH, DRAWN = 8, 64, 128, 2000
ANGLES = {"ring": torch.arange(8) * (math.pi / 4), "two": torch.tensor([math.pi / 2, math.pi / 4])}
SIGMA = {"ring": 0.05, "two": 0.1}
OPTIMIZERS = {
    "ACGD": lambda generator, critic: ACGD(generator, critic, lr=2e-3),
    "Adam": lambda generator, critic: torch.optim.Adam(two_groups(generator, critic), lr=1e-3),
}


class Snapshot(NamedTuple):
    """Samples [n, 2] after a number of steps, and how well they cover the mixture."""

    step: int
    samples: Tensor
    modes_found: int
    good_share: float


def mixture(modes: str, size: int) -> tuple[Tensor, Tensor]:
    """Return points of the mixture [size, 2] and its centers [modes, 2]."""
    centers = torch.stack([ANGLES[modes].cos(), ANGLES[modes].sin()], dim=1)
    which = torch.randint(len(centers), (size,))
    return centers[which] + SIGMA[modes] * torch.randn(size, 2), centers


def judge(step: int, samples: Tensor, modes: str) -> Snapshot:
    """Count good samples, within four sigma of a mode, and modes with a fifth of their share."""
    _, centers = mixture(modes, 0)
    distance, nearest = torch.cdist(samples, centers).min(dim=1)
    good = distance < 4 * SIGMA[modes]
    counts = torch.bincount(nearest[good], minlength=len(centers))
    found = counts >= len(samples) / len(centers) / 5
    return Snapshot(step, samples, int(found.sum()), float(good.float().mean()))


def train(name: str, args: argparse.Namespace) -> list[Snapshot]:
    """Train from ``--seed`` and return twenty snapshots."""
    torch.manual_seed(args.seed)
    generator, critic = mlp(NOISE, WIDTH, WIDTH, 2), mlp(2, WIDTH, WIDTH, 1)
    optimizer = OPTIMIZERS[name](generator.parameters(), critic.parameters())
    fixed_noise = torch.randn(DRAWN, NOISE)
    snapshots = []
    for step in track(range(1, args.steps + 1), f"{name:5}"):
        real, _ = mixture(args.modes, BATCH)
        fake = generator(torch.randn(BATCH, NOISE))
        take_step(optimizer, LOSSES[args.loss](critic(real), critic(fake)))
        if step * 20 % args.steps < 20:
            with torch.no_grad():
                snapshots.append(judge(step, generator(fixed_noise), args.modes))
    return snapshots


def coverage_table(history: dict[str, list[Snapshot]]) -> Table:
    """Return modes found, and the share of good samples, at five times."""
    steps = [str(snapshot.step) for snapshot in next(iter(history.values()))[3::4]]
    table = Table("optimizer", *steps, title="Modes found (share of good samples) after steps")
    for name, snapshots in history.items():
        table.add_row(name, *(f"{s.modes_found} ({s.good_share:.2f})" for s in snapshots[3::4]))
    return table


def draw(history: dict[str, list[Snapshot]], modes: str, file: Path) -> None:
    """Draw samples over the mixture, a row per optimizer, and the modes found below."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    rows = [[f"{name} {column}" for column in range(5)] for name in history]
    panels = figure.subplot_mosaic([*rows, ["modes"] * 5])
    real, centers = mixture(modes, DRAWN)
    for name, snapshots in history.items():
        for column, (step, samples, _, _) in enumerate(snapshots[3::4]):
            panel = panels[f"{name} {column}"]
            panel.scatter(*real.T, s=1, color="0.8")
            panel.scatter(*samples.T, s=1, color="tab:blue")
            panel.set(title=f"{name}, step {step}", xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))
            panel.set(xticks=[], yticks=[], aspect="equal")
        found = [snapshot.modes_found for snapshot in snapshots]
        panels["modes"].plot([snapshot.step for snapshot in snapshots], found, label=name)
    panels["modes"].set(xlabel="step", ylabel="modes found", ylim=(0, len(centers) + 0.5))
    panels["modes"].legend()
    figure.savefig(file, dpi=150)


def main(argv: Sequence[str] | None = None) -> dict[str, list[Snapshot]]:
    """Run the example; return the snapshots of each optimizer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", choices=ANGLES, default="ring")
    parser.add_argument("--loss", choices=LOSSES, default="wgan")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/gaussian_mixture_gan"))
    args = parser.parse_args(argv)

    history = {name: train(name, args) for name in OPTIMIZERS}
    console = Console()
    console.print(coverage_table(history))
    args.out.mkdir(parents=True, exist_ok=True)
    draw(history, args.modes, args.out / f"{args.modes}_{args.loss}.png")
    console.print(f"Wrote {args.out / f'{args.modes}_{args.loss}.png'}")
    return history


if __name__ == "__main__":
    main()
