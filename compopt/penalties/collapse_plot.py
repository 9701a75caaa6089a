"""The plot of a collapse monitor."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compopt.penalties.collapse import CollapseMonitor


def draw_spectra(monitor: CollapseMonitor, path: Path) -> Path:
    """Plot each layer's normalised singular values over the steps, alarms as vertical lines.

    Singular values are pale lines; the level is a black line and its floor a dotted one.

    Raises:
        ImportError: if matplotlib is missing.
        RuntimeError: if nothing was recorded.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "The plot needs matplotlib. Install `compopt[demo]`, or read `monitor.history`."
        ) from error
    names = list(monitor.history)
    columns = min(3, len(names))
    rows = ceil(len(names) / columns)
    figure = Figure(figsize=(4.2 * columns, 3 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for name, panel in zip(names, panels, strict=False):
        spectra = monitor.spectra(name)
        panel.plot(monitor.steps, spectra.numpy(), color="C0", alpha=0.25, linewidth=0.7)
        panel.plot(monitor.steps, monitor.levels(name), color="black", label="level")
        panel.axhline(monitor.rule.floor, color="0.5", linestyle=":", label="floor")
        for alarm in monitor.alarms:
            if alarm.layer == name:
                panel.axvline(alarm.step, color="C3", linestyle="--", label="alarm")
        panel.set(title=name or type(monitor.module).__name__, ylim=(0, 1.05))
        panel.legend(loc="lower left", fontsize="small")
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.supxlabel("step")
    figure.supylabel("singular values / the largest")
    figure.savefig(path, dpi=120)
    return path
