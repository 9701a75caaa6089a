"""Counts, table and plot of the modes that GANs find."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

SIGMA = 0.05


class Snapshot(NamedTuple):
    """Samples [n, 2] after some steps, and their scores."""

    step: int
    samples: Tensor
    modes_found: int
    good_share: float


def found(samples: Tensor, modes: Tensor, sigma: float = SIGMA) -> tuple[int, float]:
    """Return the number of modes found, and the share of good samples.

    A sample is good within four sigma of a mode; a mode is found if it gets at least a fifth of its
    share in good samples.
    """
    distances, nearest = torch.cdist(samples, modes).min(dim=1)
    good = distances < 4 * sigma
    counts = nearest[good].bincount(minlength=len(modes))
    due = len(samples) / len(modes)
    return int((counts >= due / 5).sum()), round(float(good.float().mean()), 3)


def write_table(scores: Mapping[str, Sequence[tuple[int, float]]], file: Path) -> None:
    """Print modes found for each seed, and means; write them as CSV."""
    with file.open("w", newline="") as stream:
        lines = [(n, seed, *score) for n, s in scores.items() for seed, score in enumerate(s)]
        csv.writer(stream).writerows([("name", "seed", "modes", "good share"), *lines])
    table = Table("", "modes found, by seed", "mean", "good samples", box=SIMPLE)
    for name, rows in scores.items():
        modes, shares = zip(*rows, strict=True)
        means = sum(modes) / len(modes), sum(shares) / len(shares)
        table.add_row(name, "  ".join(map(str, modes)), f"{means[0]:.1f}", f"{means[1]:.0%}")
    Console().print(table)


def draw(
    samples: Mapping[str, Sequence[Tensor]],
    scores: Mapping[str, Sequence[tuple[int, float]]],
    modes: Tensor,
    file: Path,
) -> None:
    """Plot modes found per seed on the left, and samples of the first seed on the right."""
    names, columns = list(samples), 5
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(15, 2.3 * lines + 0.6), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 2))
    left, right = parts
    axis = left.subplots()
    for row, name in enumerate(names):
        found_by_seed = sorted(modes for modes, _ in scores[name])
        # Spread the points vertically, so that equal counts do not overlap.
        height = [
            row + 0.14 * (i - (len(found_by_seed) - 1) / 2) for i in range(len(found_by_seed))
        ]
        axis.plot(found_by_seed, height, "o", markersize=5, alpha=0.8)
        mean = sum(found_by_seed) / len(found_by_seed)
        axis.plot([mean, mean], [row - 0.35, row + 0.35], color="black", linewidth=1)
    axis.set(yticks=range(len(names)), yticklabels=names, xlim=(-0.3, len(modes) + 0.3))
    axis.set(xlabel=f"modes found of {len(modes)}\na dot per seed, a bar for the mean")
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x", alpha=0.3)
    panels = right.subplots(lines, columns).ravel()
    for name, panel in zip(names, panels, strict=False):
        panel.plot(*modes.T, "x", color="0.5", markersize=7)
        panel.scatter(*samples[name][0].T, s=1)
        panel.set(xlim=(-1.7, 1.7), ylim=(-1.7, 1.7), xticks=[], yticks=[], aspect="equal")
        title = name.replace(", ", ",\n", 1)
        panel.set_title(f"{title}: {scores[name][0][0]}", fontsize="medium")
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    right.suptitle("samples of the first seed, and modes found")
    figure.savefig(file, dpi=110)
