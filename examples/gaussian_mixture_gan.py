"""Modes of a Gaussian mixture that a GAN finds without any regularization.

``--modes ring`` is eight Gaussians on a circle, ``--modes two --loss bce`` the pair of the CGD
paper. Both optimizers train the same networks from the same weights. A sample is good within four
sigma of a mode; a mode is found if it gets at least a fifth of its share in good samples.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from mode_report import Snapshot, found
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from two_players import LOSSES, Optimizer, mlp, take_step, two_groups

from compopt import ACGD

NOISE, WIDTH, BATCH, DRAWN = 8, 64, 128, 2000
RING = torch.view_as_real(torch.polar(torch.ones(8), torch.arange(8) * torch.pi / 4))
MIXTURES = {"ring": (RING, 0.05), "two": (RING[1:3], 0.1)}
Parameters = Iterable[Tensor]
OPTIMIZERS: dict[str, Callable[[Parameters, Parameters], Optimizer]] = {
    "ACGD": lambda generator, critic: ACGD(generator, critic, lr=2e-3),
    "Adam": lambda generator, critic: torch.optim.Adam(two_groups(generator, critic), lr=1e-3),
}


def real_points(name: str, size: int) -> Tensor:
    """Return points of the mixture [size, 2]."""
    modes, sigma = MIXTURES[name]
    return modes[torch.randint(len(modes), (size,))] + sigma * torch.randn(size, 2)


def train(name: str, args: argparse.Namespace) -> list[Snapshot]:
    """Train with the optimizer called ``name``; return twenty snapshots."""
    # Networks this small are faster on one thread than on several.
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    generator, critic = mlp(NOISE, WIDTH, WIDTH, 2), mlp(2, WIDTH, WIDTH, 1)
    optimizer = OPTIMIZERS[name](generator.parameters(), critic.parameters())
    (modes, sigma), fixed_noise = MIXTURES[args.modes], torch.randn(DRAWN, NOISE)
    snapshots: list[Snapshot] = []
    for step in track(range(1, args.steps + 1), name):
        real, fake = real_points(args.modes, BATCH), generator(torch.randn(BATCH, NOISE))
        take_step(optimizer, LOSSES[args.loss](critic(real), critic(fake)))
        if step * 20 % args.steps < 20:
            samples = generator(fixed_noise).detach()
            snapshots.append(Snapshot(step, samples, *found(samples, modes, sigma)))
    return snapshots


def draw(history: dict[str, list[Snapshot]], mixture: str, file: Path) -> None:
    """Plot samples at five times, a row per optimizer, with the modes found below."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    rows: Any = [[f"{name}{column}" for column in range(5)] for name in history]
    panels = figure.subplot_mosaic([*rows, ["found"] * 5])
    for name, seen in history.items():
        for column, snapshot in enumerate(seen[3::4]):
            panel = panels[f"{name}{column}"]
            for points, color in ((real_points(mixture, DRAWN), "0.8"), (snapshot.samples, "C0")):
                panel.scatter(points[:, 0], points[:, 1], s=1, color=color)
            panel.set(title=f"{name}, step {snapshot.step}", xlim=(-1.6, 1.6), ylim=(-1.6, 1.6))
            panel.set(xticks=[], yticks=[], aspect="equal")
        panels["found"].plot([s.step for s in seen], [s.modes_found for s in seen], label=name)
    panels["found"].set(xlabel="step", ylabel=f"modes found of {len(MIXTURES[mixture][0])}")
    panels["found"].legend()
    figure.savefig(file, dpi=120)


def main(argv: Sequence[str] | None = None) -> dict[str, list[Snapshot]]:
    """Run the example; return the snapshots of each optimizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modes", choices=MIXTURES, default="ring")
    parser.add_argument("--loss", choices=LOSSES, default="wgan")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/gaussian_mixture_gan"))
    args = parser.parse_args(argv)
    history = {name: train(name, args) for name in OPTIMIZERS}
    table = Table("step", *history, title="Modes found, share of good samples")
    for line in zip(*(snapshots[3::4] for snapshots in history.values()), strict=True):
        table.add_row(str(line[0].step), *(f"{s.modes_found}  {s.good_share:.0%}" for s in line))
    Console().print(table)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"{args.modes}_{args.loss}.png"
    draw(history, args.modes, file)
    print(f"Wrote {file}")
    return history


if __name__ == "__main__":
    main()
