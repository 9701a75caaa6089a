"""Contents of the report: the headline and the tables."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.cifar10.choose import SEEDS, TUNED
from benchmarks.cifar10.contrasts import Contrast, contrast, holm
from benchmarks.cifar10.protocol import load_protocol
from benchmarks.cifar10.report.words import CHOICES, DISTANCES, compared, over, words
from benchmarks.cifar10.stored import Result, endpoints
from benchmarks.harness import markdown_table

PLANNED = {"final": (112, 9.3), "long": (12, 4.0), "32 pixels": (20, 5.0)}
"""Cells and core-hours of the parts of the plan that have no protocol before tuning is done."""
RANKED = 0.25
"""Share of the distance of noise below which methods are ranked."""
HEADS = ["contrast", "distance", "seeds", "first", "second", "ratio", "95 % interval", "p", "Holm"]


@dataclass
class Report:
    """Data of the tables and plots.

    Attributes:
        results: stored cells, including trials.
        pairs: pairs of methods to compare, fixed before any run.
        metrics: distances that all cells of the pairs have; the first is the main one.
        contrasts: contrasts by distance, in the order of the pairs.
    """

    results: list[Result]
    pairs: list[tuple[str, str]]
    metrics: list[str] = field(init=False)
    contrasts: dict[str, list[Contrast]] = field(init=False)

    def __post_init__(self) -> None:
        measured = {name for result in self.results for name in result.metrics}
        self.metrics = [name for name in DISTANCES if name in measured]
        self.contrasts = {}
        for metric in self.metrics:
            found = self.endpoints(metric)
            made = (contrast(found, one, other) for one, other in self.pairs)
            self.contrasts[metric] = [c for c in made if c is not None]

    @property
    def finals(self) -> list[Result]:
        """Results that are not trials of a search."""
        return [result for result in self.results if not result.is_trial]

    def searches(self) -> dict[str, list[tuple[Result, float]]]:
        """Return by method the trials with their mean log distances at the end, by the first."""
        found: dict[str, list[tuple[Result, float]]] = {}
        for result in self.results:
            if result.is_trial and (value := result.endpoint(self.metrics[0])) is not None:
                found.setdefault(result.method, []).append((result, value))
        return found

    def endpoints(self, metric: str) -> dict[str, dict[int, float]]:
        """Return the endpoints by method and seed."""
        return endpoints(self.results, metric)

    def distance(self, method: str, metric: str, seeds: Sequence[int] | None = None) -> float:
        """Return the geometric mean of a method's endpoints."""
        found = self.endpoints(metric)[method]
        values = [found[seed] for seed in (found if seeds is None else seeds)]
        return math.exp(sum(values) / len(values))

    def is_poor(self, method: str) -> bool:
        """True if any distance is above a quarter of that of noise, too large for a ranking."""
        own = next(result for result in self.finals if result.method == method)
        return any(
            self.distance(method, metric) > RANKED * own.ceiling(metric)
            for metric in self.metrics
            if method in self.endpoints(metric)
        )

    def best(self, methods: Sequence[str], metric: str) -> str:
        """Return the method with the smallest distance."""
        return min(methods, key=lambda method: self.distance(method, metric))

    def median(self, method: str) -> Result | None:
        """Return the stored result with samples that is closest to the median seed."""
        metric = self.metrics[0]
        own = [r for r in self.finals if r.method == method and r.endpoint(metric) is not None]
        ordered = sorted(own, key=lambda result: result.endpoint(metric) or 0.0)
        middle = (len(ordered) - 1) // 2
        near = sorted(range(len(ordered)), key=lambda place: abs(place - middle))
        return next((ordered[place] for place in near if ordered[place].picture), None)


def headline(report: Report) -> str:
    """Return the headline results together with their limitations."""
    first = report.metrics[0]
    made = report.contrasts[first]
    sides: dict[str, list[str]] = {"lower": [], "higher": [], "level": []}
    tuned = {(found.one, found.other) for found in made if len(found.seeds) == len(SEEDS)}
    for index, found in enumerate(made):
        # What tuned methods show replaces what untuned ones show.
        if (_tuned(found.one), _tuned(found.other)) not in tuned:
            sides[found.verdict].append(_sentence(found, report, index))
    best = report.best(list(report.endpoints(first)), first)
    limits = [f"The smallest distance of all: {words(best)}."]
    poor = [words(method) for method in report.endpoints(first) if report.is_poor(method)]
    limits += [f"Too close to noise to be ranked: {'; '.join(poor)}."] * bool(poor)
    few = sum(len(found.seeds) < len(SEEDS) for found in made)
    limits += [f"Contrasts with fewer seeds than planned: {few} of {len(made)}."] * bool(few)
    if not any(result.run["optimizer_name"].endswith(TUNED) for result in report.finals):
        limits.append("Nothing was tuned.")
    if all(result.run["term"]["kind"] == "none" for result in report.finals):
        limits.append("No explicit term has had final runs yet.")
    text = " ".join(sides["lower"] or ["No contrast speaks for competition."])
    against = " ".join(sides["higher"] + sides["level"] + limits)
    return f"{text} **Against it:** {against}"


def _tuned(method: str) -> str:
    """Return the name of the tuned method that belongs to an untuned one."""
    return method.replace("_", f"{TUNED}_", 1)


def _sentence(found: Contrast, report: Report, index: int) -> str:
    ratios = [made[index].ratio for made in report.contrasts.values()]
    further = "".join(f", {ratio:.2f} by a second distance" for ratio in ratios[1:])
    start, other = compared(found.one, found.other)
    return (
        f"{start} ends at **{ratios[0]:.2f} times** the Frechet distance of {other} "
        f"(95 % interval {_interval(found)}; {len(found.seeds)} paired seeds{further})."
    )


def _interval(found: Contrast) -> str:
    return f"{math.exp(found.low):.2f} to {math.exp(found.high):.2f}"


def contrasts_table(report: Report, pairs: Iterable[tuple[str, str]]) -> str:
    """Return a row for each distance and each of some pairs; empty if they have no results."""
    wanted, rows = set(pairs), []
    for metric, made in report.contrasts.items():
        for found, adjusted in zip(made, _adjusted(made), strict=True):
            if (found.one, found.other) in wanted:
                rows.append(
                    [
                        over(found.one, found.other),
                        DISTANCES[metric],
                        len(found.seeds),
                        f"{report.distance(found.one, metric, found.seeds):.3g}",
                        f"{report.distance(found.other, metric, found.seeds):.3g}",
                        f"{found.ratio:.2f}",
                        _interval(found),
                        f"{found.p_value:.4f}",
                        f"{adjusted:.4f}",
                    ]
                )
    return markdown_table(HEADS, rows) if rows else ""


def _adjusted(made: Sequence[Contrast]) -> list[float]:
    """Return Holm's p-values: one correction for untuned methods, and one for tuned methods."""
    found = [0.0] * len(made)
    for is_tuned in (False, True):
        own = [n for n, each in enumerate(made) if (TUNED in each.one) is is_tuned]
        for n, value in zip(own, holm([made[n].p_value for n in own]), strict=True):
            found[n] = value
    return found


def methods_table(report: Report) -> str:
    """Return a row for each method: its cells, both distances, and the cost of a step."""
    rows = []
    for method in dict.fromkeys(result.method for result in report.finals):
        own = [result for result in report.finals if result.method == method]
        last = [result.evaluations[-1] for result in own if result.evaluations]
        diverged = sum(result.state == "diverged" for result in own)
        row = [words(method), f"{len(own)}" + (f", {diverged} diverged" if diverged else "")]
        for metric in report.metrics:
            row.append(_with_range(report.endpoints(metric).get(method, {})))
        row[0] += " ‡" if report.is_poor(method) else ""
        steps = [row_["step"] for row_ in last]
        row.append(f"{sum(steps) / len(steps):,.0f}" if steps else "")
        rows.append(row)
    heads = ["method", "seeds", *(DISTANCES[name] for name in report.metrics), "steps"]
    return markdown_table(heads, rows)


def trials_table(report: Report) -> str:
    """Return a row for each method that was searched: its trials, the best and the median one."""
    rows = []
    for method, found in report.searches().items():
        choices = min(found, key=lambda pair: pair[1])[0].run["choices"]
        options = ", ".join(
            f"{CHOICES.get(name, name)} {value if isinstance(value, str) else f'{value:.2g}'}"
            for name, value in choices.items()
        )
        values = np.exp([value for _, value in found])
        row = [words(method), len(found), f"{values.min():.3g}", f"{np.median(values):.3g}"]
        rows.append([*row, options])
    return markdown_table(["method", "trials", "best", "median", "options of the best"], rows)


def finals_table(report: Report) -> str:
    """Return the final scores of the averaged generators; empty if there are none."""
    rows: dict[str, dict[str, list[float]]] = {}
    for result in report.finals:
        for row in result.evaluations:
            if row["final"] and row["generator"] == "ema":
                for name, value in row["metrics"].items():
                    rows.setdefault(result.method, {}).setdefault(name, []).append(value)
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = [
        [words(method), *(f"{np.mean(row.get(name, math.nan)):.4g}" for name in names)]
        for method, row in rows.items()
    ]
    return markdown_table(["method, last step, mean", *names], table) if names else ""


def monitor_text(report: Report) -> str:
    """Return the numbers of good and of failed runs with an alarm of the collapse monitor."""
    metric, parts = report.metrics[0], []
    for kind, is_trial in (("trials, on which its thresholds were chosen", True), ("runs", False)):
        own = [r for r in report.results if r.monitor and r.is_trial is is_trial]
        ends = [math.exp(r.endpoint(metric) or 0.0) / r.ceiling(metric) for r in own]
        counts = []
        for low, high in ((0.0, RANKED), (0.5, math.inf)):
            among = [r for r, end in zip(own, ends, strict=True) if low <= end < high]
            alarms = sum(r.monitor["alarm"] is not None for r in among)
            counts.append(f"{alarms} of {len(among)}")
        if own:
            parts.append(
                f"Of {len(own)} {kind}, the monitor of the critic's spectra raised an alarm in "
                f"{counts[0]} that ended below a quarter of noise, and in {counts[1]} that ended "
                "above half of it."
            )
    return " ".join(parts) or "No stored run has spectra yet."


def value_rows(report: Report) -> Iterator[tuple[object, ...]]:
    """Yield a line for each metric after the last step of each run, for ``results.csv``."""
    yield "optimizer", "loss", "term", "seed", "generator", "n", "metric", "value"
    for result in report.finals:
        for row in result.evaluations:
            for name, value in (
                {**row["metrics"], "steps": row["step"]}.items() if row["final"] else ()
            ):
                key = (*result.method.split("_"), result.run["seed"], row["generator"])
                yield *key, row.get("n"), name, repr(value)


def _with_range(found: dict[int, float]) -> str:
    if not found:
        return ""
    values = [math.exp(value) for value in found.values()]
    mean = math.exp(sum(found.values()) / len(found))
    return f"{mean:.3g} ({min(values):.3g} to {max(values):.3g})"


def progress_table(parts: dict[str, list[Result]]) -> str:
    """Return the progress of each part of the plan, in cells and core-hours of training."""
    costs = [r.evaluations[-1].get("cost", 0) for rs in parts.values() for r in rs if r.hours]
    hours = sum(r.hours for rs in parts.values() for r in rs)
    pace = hours / sum(costs) if costs else 0.0
    rows = []
    for name in ("contrasts", "tuning"):
        cells = load_protocol(name).cells()
        planned = pace * sum(cell.budget or 0.0 for cell in cells)
        done = parts.get(name, [])
        rows.append([name, len(cells), len(done), planned, sum(r.hours for r in done)])
    for name, (count, planned) in PLANNED.items():
        done = parts.get(name, [])
        rows.append([name, count, len(done), planned, sum(r.hours for r in done)])
    rows.append(["all", *(sum(row[column] for row in rows) for column in range(1, 5))])
    texts = [[*row[:3], f"{row[3]:.1f}", f"{row[4]:.1f}"] for row in rows]
    return markdown_table(["part", "cells planned", "done", "core-hours planned", "spent"], texts)
