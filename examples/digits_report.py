"""The table and the plots of the digits demo."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from digits_judge import Judge
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor

# By loss and optimizer, then by seconds of training.
Samples: TypeAlias = Mapping[tuple[str, str], Mapping[float, Tensor]]


def write_table(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Print the rows and write them as comma-separated values."""
    table = Table(*rows[0], title="Digits without regularization", box=SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def draw(judge: Judge, samples: Samples, folder: Path) -> None:
    """Plot all samples, those of the plain Wasserstein loss, which differ most, and the curves."""
    draw_samples(judge, samples, folder / "samples.png")
    claim = {pair: samples[pair] for pair in [("wgan", "Adam 0.9"), ("wgan", "ACGD")]}
    draw_samples(judge, claim, folder / "wgan.png")
    draw_curves(judge, samples, folder / "distance.png")


def draw_samples(judge: Judge, samples: Samples, file: Path, rows: int = 6) -> None:
    """Plot mosaics of the last samples, a row per loss, real digits first."""
    losses, names = (list(dict.fromkeys(part)) for part in zip(*samples, strict=True))
    size = 4 * (1 + len(names)), 0.5 + 3 * len(losses)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(losses), 1 + len(names), squeeze=False)
    for line, loss in zip(panels, losses, strict=True):
        last = {f"{loss}, {name}": list(samples[loss, name].values())[-1] for name in names}
        shown = {"real digits": judge.images, **last}
        for panel, (title, images) in zip(line, shown.items(), strict=True):
            panel.imshow(judge.mosaic(images, rows), cmap="gray_r", vmin=0, vmax=16)
            panel.set(title=title, xticks=range(4, 90, 9), xticklabels=range(10), yticks=[])
    figure.supxlabel("the first samples that the classifier takes for each digit")
    figure.savefig(file, dpi=120)


def draw_curves(judge: Judge, samples: Samples, file: Path) -> None:
    """Plot the distance to the nearest real digit during training, a panel per loss."""
    losses = list(dict.fromkeys(loss for loss, _ in samples))
    figure = Figure(figsize=(5 * len(losses), 4), layout="constrained")
    panels = figure.subplots(1, len(losses), sharey=True, squeeze=False)[0]
    for (loss, name), taken in samples.items():
        distances = [judge.distance(images) for images in taken.values()]
        panels[losses.index(loss)].plot(list(taken), distances, ".-", label=name)
    for panel, loss in zip(panels, losses, strict=True):
        panel.axhline(judge.real_distance(), color="0.6", linestyle="--", label="real to real")
        panel.set(title=loss, xlabel="seconds of training", ylim=(15, 60))
    panels[0].set(ylabel="mean distance to the nearest real digit")
    panels[-1].legend()
    figure.savefig(file, dpi=120)
