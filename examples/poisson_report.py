"""The errors of the networks for the Poisson equation, as a table, data and a figure."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from poisson_problem import Solution, exact, grid
from rich.console import Console
from rich.table import Table


@dataclass
class Record:
    """Result of a method.

    Attributes:
        name: name of the method.
        curve: pairs of processor seconds and relative error.
        steps: number of steps.
        solution: the final network.
    """

    name: str
    curve: list[tuple[float, float]]
    steps: int
    solution: Solution


def print_table(records: dict[str, Record]) -> None:
    """Print steps, seconds, the last error and the smallest."""
    table = Table("method", "steps", "seconds", "last error", "smallest error")
    for record in records.values():
        seconds, last = record.curve[-1]
        smallest = min(error for _, error in record.curve)
        table.add_row(
            record.name, str(record.steps), f"{seconds:.0f}", f"{last:.2e}", f"{smallest:.2e}"
        )
    Console().print(table)


def draw(records: dict[str, Record], folder: Path, size: int = 60) -> None:
    """Write ``curves.json`` and ``errors.png``: error against time, and maps of the final error."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        name: {"steps": r.steps, "curve": [(round(s, 2), float(f"{e:.4g}")) for s, e in r.curve]}
        for name, r in records.items()
    }
    (folder / "curves.json").write_text(json.dumps(data, indent=1) + "\n")
    figure = Figure(figsize=(3.1 * len(records) + 4.5, 4.2), layout="constrained")
    left, *maps = figure.subplots(1, len(records) + 1, width_ratios=[1.6] + [1] * len(records))
    points = grid(size)
    for record, panel in zip(records.values(), maps, strict=True):
        left.semilogy(*zip(*record.curve, strict=True), label=record.name)
        with torch.no_grad():
            error = (record.solution(points) - exact(points)).abs().clamp(min=1e-12)
        panel.imshow(
            error.log10().reshape(size, size).T.numpy(),
            origin="lower",
            extent=(-2, 2, -2, 2),
            vmin=-7,
            vmax=-1,
            cmap="magma",
        )
        seconds, last = record.curve[-1]
        panel.set_title(f"{record.name}\n{last:.1e} after {seconds:.0f} s", fontsize=9)
        panel.set(xlabel="x", ylabel="y")
    left.set(xlabel="seconds of processor time", ylabel="relative error", title="Poisson equation")
    left.legend(fontsize=8)
    left.grid(alpha=0.3)
    figure.colorbar(maps[-1].images[0], ax=maps, label="log10 of the absolute error")
    figure.savefig(folder / "errors.png", dpi=120)
