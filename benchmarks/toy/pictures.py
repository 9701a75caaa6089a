"""The figures of the experiments."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.toy.statements import Cells, Statement, covers_both, last_radius

COLORS = {
    "CGD": "C1",
    "ACGD": "C3",
    "GDA": "0.6",
    "LCGD": "C0",
    "SGA": "C2",
    "ConOpt": "C4",
    "OGDA": "C5",
    "ExtraGradient": "C6",
    "LEAD": "C8",
    "alternating GDA": "0.3",
    "Lookahead-minmax": "C7",
    "Adam": "navy",
    "ExtraAdam": "teal",
    "OptimisticAdam": "goldenrod",
}


def _said_beside(panel: Axes, statements: Sequence[Statement]) -> None:
    """Write the published statements and the verdicts under a panel."""
    lines = []
    for statement in statements:
        verdict = "agree" if statement.agrees else "DISAGREE"
        lines.append(f"{verdict}: {statement.published}")
    panel.set_xlabel(panel.get_xlabel() + "\n\n" + "\n".join(lines), fontsize=8)


def _said_below(figure: Figure, statements: Sequence[Statement]) -> None:
    """Write the published statements, the verdicts and what was found under a figure."""
    # About so many characters of this size fit into an inch.
    width = int(15 * figure.get_figwidth())
    lines = (
        f"{'agree' if s.agrees else 'DISAGREE'}: {s.published}  [{s.found}]" for s in statements
    )
    figure.supxlabel("\n".join(textwrap.fill(line, width) for line in lines), fontsize=8)


def trajectories(
    cells: Cells, names: Sequence[str], alphas: Sequence[int], said: list[Statement], file: Path
) -> None:
    """Draw the paths of the scalar games: a row a game, a column an alpha."""
    rows = ("bilinear", "convex", "concave")
    figure = Figure(figsize=(4.2 * len(alphas), 4.9 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), len(alphas), squeeze=False)
    for game, line in zip(rows, panels, strict=True):
        for alpha, panel in zip(alphas, line, strict=True):
            for name in names:
                path = cells[f"{game} {alpha} {name}"]["path"]
                panel.plot(
                    *zip(*path, strict=True), ".-", ms=3, lw=0.9, label=name, color=COLORS[name]
                )
            panel.plot(0.5, 0.5, "ko", ms=5)
            panel.plot(0, 0, "k+", ms=12)
            panel.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal", xlabel="x", ylabel="y")
            panel.set_title(f"{game}, alpha = {alpha}", fontsize=10)
            _said_beside(panel, [s for s in said if s.experiment == f"{game}, alpha = {alpha}"])
    panels[0][0].legend(fontsize=7, ncols=2)
    figure.savefig(file, dpi=110)


def divergence(cells: Cells, names: Sequence[str], alphas: Sequence[int], file: Path) -> None:
    """Draw the table of last distances from the origin, relative to the first."""
    columns = [(game, alpha) for game in ("bilinear", "convex", "concave") for alpha in alphas]
    figure = Figure(figsize=(1.25 * len(columns) + 2, 0.32 * len(names) + 1), layout="constrained")
    panel = figure.subplots()
    panel.axis("off")
    values = [[last_radius(cells[f"{g} {a} {name}"]) for g, a in columns] for name in names]
    table = panel.table(
        [[f"{value:.2g}" for value in row] for row in values],
        rowLabels=list(names),
        colLabels=[f"{game}\nalpha = {alpha}" for game, alpha in columns],
        cellColours=[
            ["#cfe8cf" if v < 0.5 else "#f6d5d0" if v > 1 else "#f5eec8" for v in row]
            for row in values
        ],
        loc="center",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (row, _), cell in table.get_celld().items():
        cell.set_height(0.11 if row == 0 else 0.05)
    panel.set_title(
        "Distance from the origin after 50 steps of 0.2, relative to the start (green: below 1/2)",
        fontsize=9,
    )
    figure.savefig(file, dpi=120)


def covariance(
    cells: Cells,
    rows: Sequence[str],
    names: Sequence[str],
    rates: Sequence[float],
    said: Sequence[Statement],
    file: Path,
) -> None:
    """Draw error against passes, a panel for each source of the covariance and step size.

    Methods may lack some of the step sizes. There are two panels in a line, which a page can show
    large enough to read.
    """
    cases = [(row, lr) for row in rows for lr in rates]
    lines = -(-len(cases) // 2)
    figure = Figure(figsize=(8.0, 3.2 * lines + 1.6), layout="constrained")
    panels = figure.subplots(lines, 2, squeeze=False, sharey=True)
    for (row, lr), panel in zip(cases, panels.flat, strict=True):
        for name in names:
            cell = cells.get(f"{row} {name} lr={lr:g}")
            if cell is None:
                continue
            panel.semilogy(cell["passes"], cell["errors"], label=name, color=COLORS[name], lw=1.4)
            if cell["diverged"]:
                panel.plot(cell["passes"][-1], cell["errors"][-1], "x", color=COLORS[name])
        panel.set_title(f"{row}, eta = {lr:g}", fontsize=9)
        panel.grid(alpha=0.3)
        panel.set_xlabel("forward-pass equivalents (x: diverges from there)", fontsize=8)
    for line in panels:
        line[0].set_ylabel("error")
    legend = panels[0][0].get_legend_handles_labels()
    if len(names) > 8:
        figure.legend(*legend, fontsize=8, ncols=5, loc="outside upper center")
    else:
        panels[0][0].legend(fontsize=7)
    _said_below(figure, said)
    figure.savefig(file, dpi=110)


def mixture(
    cells: Cells,
    names: Sequence[str],
    rates: Sequence[float],
    said: Sequence[Statement],
    file: Path,
) -> None:
    """Draw the points of each optimizer and step size at the end, with its success rate."""
    figure = Figure(figsize=(2.3 * len(rates), 2.3 * len(names) + 1), layout="constrained")
    panels = figure.subplots(len(names), len(rates), squeeze=False, sharex=True, sharey=True)
    for name, line in zip(names, panels, strict=True):
        for lr, panel in zip(rates, line, strict=True):
            runs: list[Any] = [
                c for key, c in cells.items() if key.startswith(f"{name} lr={lr:g} ")
            ]
            for index, cell in enumerate(runs):
                if cell["points"]:
                    panel.plot(*zip(*cell["points"], strict=True), ".", ms=2, color=f"C{index}")
            for mode in ((0.0, 1.0), (0.5**0.5, 0.5**0.5)):
                panel.plot(*mode, "k+", ms=10)
            success = sum(map(covers_both, runs))
            panel.set_title(f"{name}, {lr:g}: {success}/{len(runs)}", fontsize=7)
            panel.set(xlim=(-0.8, 1.6), ylim=(-0.5, 1.8))
            panel.tick_params(labelsize=6)
    _said_below(figure, said)
    figure.savefig(file, dpi=110)
