"""Quality against steps, seconds and gradient calls."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.cifar10.report.cells import Cell, Cells, better
from benchmarks.cifar10.report.runs import Row
from benchmarks.cifar10.report.style import GREY, looks

COLUMNS = 4

AXES: dict[str, tuple[str, Callable[[Row], float]]] = {
    "steps": ("steps", lambda row: float(row["step"])),
    "seconds": ("seconds of training", lambda row: float(row["seconds"])),
    "gradients": (
        "gradient-call equivalents",
        lambda row: float(row["gradient_calls"] + row["mixed_products"]),
    ),
}
"""Label and position of an evaluation on the horizontal axis."""


class Panels:
    """A panel for each loss and term, a block of rows for each loss; a legend above them.

    Args:
        losses, terms: that have panels.
        height: of a panel in inches.
    """

    def __init__(self, losses: Sequence[str], terms: Sequence[str], height: float = 1.75) -> None:
        columns = min(COLUMNS, len(terms))
        self._rows_each = -(-len(terms) // columns)
        rows = self._rows_each * len(losses)
        size = (max(2.1 * columns, 4.2), height * rows + 0.55)
        self.figure = Figure(figsize=size, layout="constrained")
        grid = self.figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        self._panels: dict[tuple[str, str], Axes] = {}
        for number, loss in enumerate(losses):
            for index, term in enumerate(terms):
                row, column = divmod(index, columns)
                panel = grid[number * self._rows_each + row, column]
                panel.set_title(f"{loss}, {'no term' if term == 'none' else term}", loc="left")
                self._panels[loss, term] = panel
        used = set(self._panels.values())
        for panel in grid.flat:
            if panel not in used:
                panel.set_axis_off()
        # Shared axes label the last row only, which may have no panel in a column.
        for column in range(columns):
            lowest = [panel for panel in grid[:, column] if panel in used][-1]
            lowest.tick_params(labelbottom=True)

    def __getitem__(self, key: tuple[str, str]) -> Axes:
        return self._panels[key]

    def __iter__(self):
        return iter(self._panels.values())

    def finish(self, handles: Sequence[Line2D], xlabel: str, ylabel: str) -> Figure:
        """Add legend and labels; return the figure."""
        self.figure.supxlabel(xlabel, fontsize=9)
        self.figure.supylabel(ylabel, fontsize=9)
        columns = 5 if self.figure.get_figwidth() > 6 else 2
        self.figure.legend(handles=handles, loc="outside upper left", ncols=columns)
        return self.figure


def _mean_line(
    cell: Cell, metric: str, generator: str, place: Callable[[Row], float]
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Return each seed's line [2, points] and, where all have the same points, their mean."""
    lines = []
    for run in cell.runs:
        rows = [row for row in run.curve(generator) if metric in row["metrics"]]
        if rows:
            points = [(place(row), float(row["metrics"][metric])) for row in rows]
            lines.append(np.array(points).T)
    same = len(lines) > 1 and len({line.shape for line in lines}) == 1
    return lines, np.mean(lines, axis=0) if same else None


def draw_curves(cells: Cells, metric: str, axis: str, generator: str = "raw") -> Figure | None:
    """Return the picture of a metric over training; None if nothing was judged in its course.

    Thin lines are seeds, thick ones their mean.

    Args:
        cells: of the main table.
        metric: with the same n throughout.
        axis: of `AXES`.
        generator: "raw" or "ema".
    """
    label, place = AXES[axis]
    names = [(run.optimizer, run.kind) for run in cells.runs if run.optimizer in cells.optimizers]
    styles = looks(list(dict.fromkeys(names)))
    panels = Panels(cells.losses, cells.terms)
    drawn: dict[str, Line2D] = {}
    rows: list[Row] = []
    for (optimizer, loss, term), cell in cells.by_key.items():
        if optimizer not in styles or (lines := _mean_line(cell, metric, generator, place)) == []:
            continue
        style, (seeds, mean) = styles[optimizer], lines
        thick = [mean] if mean is not None else seeds
        panel = panels[loss, term]
        for x, y in seeds if mean is not None else []:
            panel.plot(x, y, color=style["color"], linewidth=0.6, alpha=0.45)
        for x, y in thick:
            (drawn[optimizer],) = panel.plot(x, y, **style)
        rows += [row for run in cell.runs for row in run.curve(generator)]
    if not drawn:
        return None
    values = [row["metrics"][metric] for row in rows if metric in row["metrics"]]
    handles = [Line2D([], [], label=name, **styles[name]) for name in styles if name in drawn]
    handles += _bounds(panels, rows, metric, min(values))
    for panel in panels:
        panel.set_xlim(left=0)
        # Within half a decade a logarithmic axis would have a single number.
        if better(metric) == "low" and max(values) > 4 * min(values) > 0:
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter(NullFormatter())
    count = rows[0].get("n")
    return panels.finish(handles, label, f"{metric}\nn = {count:,}, {generator} generator")


def _bounds(panels: Panels, rows: Sequence[Row], metric: str, lowest: float) -> list[Line2D]:
    """Draw what real images and noise score at the curves' n; return their legend."""
    handles = []
    for bound, dash, text in (("floors", "--", "real images"), ("ceilings", ":", "uniform noise")):
        values = [row[bound][metric] for row in rows if metric in row.get(bound, {})]
        if not values:
            continue
        style = {"color": GREY, "linestyle": dash, "linewidth": 1.0}
        # A floor far below would leave the curves no room.
        is_far = bound == "floors" and better(metric) == "low" and values[0] < 0.3 * lowest
        for panel in panels if not is_far else ():
            panel.axhline(values[0], **style)
        label = f"{text}: {values[0]:.3g}"
        handles.append(Line2D([], [], label=f"{label}, below" if is_far else label, **style))
    return handles
