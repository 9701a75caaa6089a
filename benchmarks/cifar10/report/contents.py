"""Contents of the report: the headline and the tables."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.cifar10.choose import SEEDS, TUNED
from benchmarks.cifar10.contrasts import LEVEL, Contrast, contrast, holm
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


def groups(report: Report) -> dict[str, list[str]]:
    """Return methods: competitive without a term, with a gradient penalty, and all explicit."""
    found: dict[str, list[str]] = {"implicit": [], "penalty": [], "explicit": []}
    measured = report.endpoints(report.metrics[0])
    tuned = [result for result in report.finals if result.run["optimizer_name"].endswith(TUNED)]
    # Compare tuned methods only with each other: they have their own seeds and budget.
    for result in tuned or report.finals:
        optimizer, term = result.run["optimizer"], result.run["term"]["kind"]
        is_competitive = optimizer["kind"] in ("cgd", "acgd")
        if is_competitive and optimizer.get("interaction", 1) > 0 and term == "none":
            group = "implicit"
        elif is_competitive or term == "none":
            continue
        else:
            group = "penalty" if term == "wgan-gp" else "explicit"
        if result.method in measured and result.method not in found[group]:
            found[group].append(result.method)
    found["explicit"] += found["penalty"]
    return found


def headline(report: Report) -> str:
    """Return the headline results together with their limitations."""
    first = report.metrics[0]
    made = report.contrasts[first]
    sides: dict[str, list[str]] = {"lower": [], "higher": [], "level": []}
    for index, found in enumerate(made):
        sides[found.verdict].append(_sentence(found, report, index))
    best = report.best(list(report.endpoints(first)), first)
    limits = [f"The smallest distance of all: {words(best)}."]
    poor = [words(method) for method in report.endpoints(first) if report.is_poor(method)]
    limits += [f"Too close to noise to be ranked: {'; '.join(poor)}."] * bool(poor)
    counts = sorted(len(found.seeds) for found in made)
    # The smallest possible p-value of a sign-flip test.
    if 2 ** (1 - counts[-1]) * len(made) > LEVEL:
        seeds = "to".join(f" {count} " for count in dict.fromkeys((counts[0], counts[-1])))
        limits.append(f"With{seeds}of {len(SEEDS)} planned seeds no test can be significant.")
    if not any(result.run["optimizer_name"].endswith(TUNED) for result in report.finals):
        limits.append("Nothing was tuned.")
    if not groups(report)["explicit"]:
        limits.append("No explicit term has run yet.")
    text = " ".join(sides["lower"] or ["No contrast speaks for competition."])
    against = " ".join(sides["higher"] + sides["level"] + limits)
    return f"{text} **Against it:** {against}"


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


def contrasts_table(report: Report, others: Sequence[str]) -> str:
    """Return a row for each distance and contrast with one of ``others``."""
    rows = []
    for metric, made in report.contrasts.items():
        for found, adjusted in zip(made, holm([c.p_value for c in made]), strict=True):
            if found.other not in others:
                continue
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
    return markdown_table(HEADS, rows)


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
    metric = report.metrics[0]
    watched = [result for result in report.results if result.monitor]
    ends = [math.exp(r.endpoint(metric) or 0.0) / r.ceiling(metric) for r in watched]
    if not watched:
        return "No stored run has spectra yet."
    counts = []
    for low, high in ((0.0, RANKED), (0.5, math.inf)):
        own = [r for r, end in zip(watched, ends, strict=True) if low <= end < high]
        counts.append(f"{sum(r.monitor['alarm'] is not None for r in own)} of {len(own)}")
    return (
        f"Over the {len(watched)} runs with stored spectra the monitor of the critic's spectra "
        f"raised an alarm in {counts[0]} that ended below a quarter of noise, and in {counts[1]} "
        "that ended above half of it."
    )


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
