"""Plots of the report: forest, curves, searches and samples."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

from benchmarks.cifar10.contrasts import Contrast, expected_best
from benchmarks.cifar10.report.words import CHOICES, DISTANCES, compared, words
from benchmarks.cifar10.stored import Result, curve

# Okabe and Ito's colours, distinguishable with all kinds of colour vision.
COLORS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c8c")
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.2, 1.5, 2, 3, 5, 10)
AXES: dict[str, Callable[[dict], float]] = {
    "cost, in steps of alternating Adam": lambda row: row.get("cost", math.nan),
    "steps": lambda row: row["step"],
    "gradients and products": lambda row: row["gradient_calls"] + row["mixed_products"],
}
"""What a curve is drawn against."""
SHOWN = 8
"""Samples a side."""


def color_of(methods: Sequence[str]) -> dict[str, str]:
    """Return a colour for each method."""
    return {name: COLORS[index % len(COLORS)] for index, name in enumerate(methods)}


def draw_forest(contrasts: Sequence[Sequence[Contrast]], metrics: Sequence[str]) -> Figure:
    """Plot each contrast's ratio of distances with interval and seeds, one colour per distance.

    Args:
        contrasts: for each distance, the same contrasts in the same order.
        metrics: names of the distances.
    """
    rows = len(contrasts[0])
    figure = Figure(figsize=(8, 1.3 + 0.8 * rows), layout="constrained")
    axes = figure.subplots()
    axes.axvline(1, color="0.4", linewidth=1, zorder=0)
    for number, made in enumerate(contrasts):
        color = COLORS[number]
        for row, found in enumerate(made):
            place = row + 0.3 * (number - (len(contrasts) - 1) / 2)
            seeds = np.exp(found.differences)
            axes.plot(seeds, [place] * len(seeds), "|", color=color, alpha=0.6, markersize=9)
            axes.plot(np.exp([found.low, found.high]), [place] * 2, color=color, linewidth=2.5)
            axes.plot(found.ratio, place, "s", color=color, markersize=7)
    labels = []
    for found in contrasts[0]:
        start, other = compared(found.one, found.other)
        labels.append(f"{start}\nover {other}, {len(found.seeds)} seeds")
    axes.set_yticks(range(rows), labels)
    axes.set_ylim(rows - 0.45, -0.55)
    axes.set_xscale("log")
    axes.set_xlabel("distance of the first over that of the second; below 1 the first is better")
    axes.minorticks_off()
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in RATIOS if low <= tick <= high])
    axes.xaxis.set_major_formatter("{x:g}")
    handles = [
        Line2D([], [], color=COLORS[number], marker="s", label=DISTANCES[metric])
        for number, metric in enumerate(metrics)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    return figure


def draw_curves(results: Sequence[Result], metric: str) -> Figure:
    """Plot a distance over training: geometric means over seeds, and bands of their range."""
    losses = list(dict.fromkeys(result.run["loss"] for result in results))
    figure = Figure(figsize=(9, 0.6 + 2.3 * len(losses)), layout="constrained")
    grid = figure.subplots(len(losses), len(AXES), sharey=True, sharex="col", squeeze=False)
    for line, loss in zip(grid, losses, strict=True):
        own = [result for result in results if result.run["loss"] == loss]
        methods = list(dict.fromkeys(result.method for result in own))
        for axes, (label, place) in zip(line, AXES.items(), strict=True):
            for method, color in color_of(methods).items():
                of_method = [result for result in own if result.method == method]
                _draw_band(axes, of_method, metric, place, color)
            axes.grid(alpha=0.3)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.set_xlabel(label if loss == losses[-1] else "")
            _set_log(axes)
        line[0].set_ylabel("Frechet distance")
        line[0].legend(frameon=False, fontsize=8)
    return figure


def _set_log(axes: Axes, ticks: Sequence[float] = (1, 2, 5)) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=ticks))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_band(
    axes: Axes,
    results: Sequence[Result],
    metric: str,
    place: Callable[[dict], float],
    color: str,
) -> None:
    lines = [curve(result.evaluations, metric) for result in results]
    # Seeds that diverged have fewer points.
    points = min((len(line) for line in lines), default=0)
    if not points:
        return
    logs = np.log([[value for _, value in line[:points]] for line in lines])
    x = [place(row) for row, _ in lines[0][:points]]
    label = f"{words(results[0].method)} ({len(lines)})"
    axes.plot(x, np.exp(logs.mean(0)), color=color, label=label)
    axes.fill_between(x, np.exp(logs.min(0)), np.exp(logs.max(0)), color=color, alpha=0.2, lw=0)


def draw_searches(searches: Mapping[str, Sequence[tuple[Result, float]]]) -> Figure:
    """Plot the expected best of k trials, and endpoints against learning rate and strength.

    Args:
        searches: by method its trials, each with its mean log distance at the end.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    best, *sensitivity = figure.subplots(1, 3, sharey=True)
    for method, color in color_of(list(searches)).items():
        own = searches[method]
        values = np.array([value for _, value in own])
        count = np.arange(1, len(own) + 1)
        best.plot(count, np.exp(expected_best(values)), "o-", color=color, label=words(method))
        for axes, option in zip(sensitivity, ("lr", "interaction"), strict=True):
            places = [trial.run["choices"].get(option, math.nan) for trial, _ in own]
            axes.plot(places, np.exp(values), "o", color=color)
            axes.set(xscale="log", xlabel=CHOICES[option])
            # Further labels would lie upon each other in a range of a decade or two.
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
    best.set(xlabel="trials", ylabel="Frechet distance, expected best")
    _set_log(best, (1, 1.5, 2, 3, 5, 7))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def draw_samples(results: Sequence[Result], metric: str) -> Figure:
    """Show the stored samples of some results side by side, with their distances."""
    figure = Figure(figsize=(2.4 * len(results), 2.9), layout="constrained")
    for axes, result in zip(
        figure.subplots(1, len(results), squeeze=False)[0], results, strict=True
    ):
        assert result.picture is not None
        with Image.open(result.picture) as picture:
            pitch = (picture.width - 2) // 8
            side = SHOWN * pitch + 2
            axes.imshow(picture.convert("RGB").crop((0, 0, side, side)), interpolation="nearest")
        axes.set_axis_off()
        distance = math.exp(result.endpoint(metric) or math.nan)
        title = f"{words(result.method)}\nseed {result.run['seed']}, {distance:.2f}"
        axes.set_title(title, fontsize=8)
    return figure
