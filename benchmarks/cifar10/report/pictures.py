"""Samples side by side, and the critic's spectra with the collapse monitor's alarms."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from benchmarks.cifar10.report.cells import Cells
from benchmarks.cifar10.report.curves import Panels
from benchmarks.cifar10.report.runs import Run
from benchmarks.cifar10.report.style import INK, looks
from compopt.penalties import CollapseAlarm, CollapseRule

SHOWN = 4
"""Samples a side in a panel."""
PITCH = 34
"""Pixels from one sample to the next in the stored grids."""


def draw_samples(cells: Cells, loss: str, generator: str = "raw") -> Figure | None:
    """Return the first samples of each cell of a loss, a row an optimizer and a column a term.

    The first seed and its last evaluation; None if there are no samples.
    """
    rows, columns = len(cells.optimizers), len(cells.terms)
    figure = Figure(figsize=(1.35 * columns + 0.4, 1.55 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    found = False
    for line, optimizer in zip(grid, cells.optimizers, strict=True):
        for panel, term in zip(line, cells.terms, strict=True):
            panel.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1), aspect="equal")
            panel.grid(visible=False)
            for spine in panel.spines.values():
                spine.set_visible(False)
            cell = cells.by_key.get((optimizer, loss, term))
            picture = cell.runs[0].last_sample(generator) if cell else None
            note = _note(cell.runs[0]) if cell else "not in the protocol"
            if picture is not None:
                panel.imshow(_corner(picture), extent=(0, 1, 0, 1), interpolation="nearest")
                panel.set_xlabel(note, fontsize=7, labelpad=2)
                found = True
            else:
                place = {"ha": "center", "va": "center", "fontsize": 7}
                panel.text(0.5, 0.5, note.replace(", ", "\n") or "no samples", **place)
        line[0].set_ylabel(optimizer, fontsize=9)
    for panel, term in zip(grid[0], cells.terms, strict=True):
        panel.set_title("no term" if term == "none" else term, fontsize=9)
    return figure if found else None


def _note(run: Run) -> str:
    if run.state in ("finished", "waiting"):
        return run.state.replace("finished", "")
    return f"{run.state}, step {run.status.get('step', 0):,}"


def _corner(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        side = min(SHOWN * PITCH + 2, *picture.size)
        return picture.convert("RGB").crop((0, 0, side, side))


def level(values: Sequence[float]) -> float | None:
    """Return the mean of a normalised spectrum without its largest value, None if it has no more.

    The collapse monitor watches this for a fall.
    """
    return statistics.fmean(values[1:]) if len(values) > 1 else None


def levels(run: Run) -> list[tuple[int, float]]:
    """Return by step the lowest level of all layers: the one nearest to collapse."""
    points = []
    for row in run.spectra:
        found = [value for values in row["layers"].values() if (value := level(values)) is not None]
        if found:
            points.append((row["step"], min(found)))
    return points


def alarms(run: Run) -> list[CollapseAlarm]:
    """Return the first alarm of each layer, by the collapse monitor's rule of now.

    Judged anew from the recorded spectra, so that all runs of a sweep are judged alike.
    """
    rule, steps = CollapseRule(), [row["step"] for row in run.spectra]
    found = []
    for layer in run.spectra[0]["layers"] if run.spectra else ():
        spectra = [row["layers"][layer] for row in run.spectra]
        verdicts = (rule.judge(layer, steps[:n], spectra[:n]) for n in range(1, len(steps) + 1))
        found += [alarm for alarm in verdicts if alarm is not None][:1]
    return found


def _styles(cells: Cells) -> dict[str, dict[str, str]]:
    names = [(run.optimizer, run.kind) for run in cells.runs if run.optimizer in cells.optimizers]
    return looks(list(dict.fromkeys(names)))


def draw_levels(cells: Cells) -> Figure | None:
    """Return the critics' spectra over training, with alarms; None without spectra."""
    styles, drawn = _styles(cells), set()
    panels = Panels(cells.losses, cells.terms)
    has_alarm = False
    for (optimizer, loss, term), cell in cells.by_key.items():
        if optimizer not in styles:
            continue
        for run in cell.runs:
            points = levels(run)
            if not points:
                continue
            drawn.add(optimizer)
            panels[loss, term].plot(*zip(*points, strict=True), **styles[optimizer])
            for alarm in alarms(run):
                has_alarm = True
                panels[loss, term].plot(
                    alarm.step, alarm.level, "v", color=INK, markersize=7, fillstyle="none"
                )
    if not drawn:
        return None
    for panel in panels:
        panel.set(ylim=(0, 1))
        panel.set_xlim(left=0)
    handles = [Line2D([], [], label=name, **styles[name]) for name in styles if name in drawn]
    if has_alarm:
        handles.append(
            Line2D([], [], color=INK, marker="v", fillstyle="none", linestyle="", label="alarm")
        )
    return panels.finish(handles, "steps", "lowest mean of $\\sigma_k / \\sigma_1$, k > 1")


def draw_spectra(cells: Cells, loss: str) -> Figure | None:
    """Return the last spectra of each layer for a loss, a panel a layer and term.

    The first seed of each cell; layers with a single singular value are left out.
    """
    styles = _styles(cells)
    last = {
        key: cell.runs[0].spectra[-1]["layers"]
        for key, cell in cells.by_key.items()
        if key[1] == loss and key[0] in styles and cell.runs[0].spectra
    }
    layers = dict.fromkeys(
        name for found in last.values() for name, values in found.items() if len(values) > 1
    )
    if not layers:
        return None
    panels = Panels(list(layers), cells.terms, height=1.5)
    for (optimizer, _, term), found in last.items():
        for name in layers:
            values = found.get(name, [])
            if len(values) > 1:
                x = [index / (len(values) - 1) for index in range(len(values))]
                style = styles[optimizer] | {"marker": ""}
                panels[name, term].plot(x, values, **style)
    for panel in panels:
        panel.set(ylim=(0, 1.02), xlim=(0, 1))
    names = dict.fromkeys(key[0] for key in last)
    handles = [Line2D([], [], label=name, **styles[name] | {"marker": ""}) for name in names]
    return panels.finish(handles, "rank of the singular value", "$\\sigma_k / \\sigma_1$")
