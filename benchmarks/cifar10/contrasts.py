"""Paired contrasts of methods: endpoints by seed, their differences, and how sure they are."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.cifar10.folder import EVALUATIONS, RunFolder, write_json
from benchmarks.cifar10.queue import endpoint
from benchmarks.cifar10.sweep import Sweep

KEPT = ("step", "generator", "final", "cost", "seconds", "gradient_calls", "mixed_products")
"""What of an evaluation a stored result keeps, beside its metrics and their bounds."""
RESAMPLES = 9999
CONFIDENCE = 0.95


def store_results(sweep: Sweep, out: Path) -> int:
    """Write a small file for each cell that is done; return how many there are.

    Args:
        sweep: whose cells.
        out: folder of the files, made if it does not exist.
    """
    out.mkdir(parents=True, exist_ok=True)
    done = [name for name in sweep.cells if sweep.is_done(name)]
    for name in done:
        folder = RunFolder(sweep.folder(name))
        rows = []
        for row in folder.rows(EVALUATIONS):
            kept = {key: row[key] for key in KEPT if key in row}
            bounds = {key: row.get(key, {}) for key in ("metrics", "floors", "ceilings")}
            rows.append({**kept, **bounds, "n": row.get("n")})
        state = folder.status()["state"]
        cell = sweep.config(name).as_dict()
        write_json(out / f"{name}.json", {"state": state, "run": cell, "evaluations": rows})
    return len(done)


def load_results(folder: Path) -> list[dict[str, Any]]:
    """Return the stored results, by name."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*_seed*.json"))]


def endpoints(results: Sequence[dict[str, Any]], metric: str) -> dict[str, dict[int, float]]:
    """Return the mean log distance at the last three points, by method and seed.

    A run that diverged has no endpoint below that of noise: it gets the logarithm of the distance
    of noise.
    """
    found: dict[str, dict[int, float]] = {}
    for result in results:
        run = result["run"]
        rows = [
            {**row, "metrics": {metric: row["metrics"][metric]}}
            for row in result["evaluations"]
            if metric in row["metrics"]
        ]
        method = f"{run['optimizer_name']}_{run['loss']}_{run['term_name']}"
        value = endpoint(rows)
        if result["state"] == "diverged":
            value = max(
                (
                    math.log(row["ceilings"][metric])
                    for row in result["evaluations"]
                    if metric in row["ceilings"]
                ),
                default=math.inf,
            )
        elif not rows:
            continue
        found.setdefault(method, {})[run["seed"]] = value
    return found


@dataclass(frozen=True)
class Contrast:
    """One method beside another, over the seeds that both have.

    Attributes:
        one: the first method.
        other: the second.
        seeds: in order.
        differences: of log distances by seed; negative where the first is better.
        mean: of the differences.
        low: lower end of the bootstrap interval of the mean (BCa, 95 %).
        high: upper end.
        p_value: of the exact two-sided sign-flip test.
    """

    one: str
    other: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    p_value: float

    @property
    def ratio(self) -> float:
        """The first method's distance over the second's, as a geometric mean."""
        return math.exp(self.mean)


def contrast(found: dict[str, dict[int, float]], one: str, other: str) -> Contrast | None:
    """Compare two methods; None if they have fewer than two seeds in common."""
    seeds = sorted(found.get(one, {}).keys() & found.get(other, {}).keys())
    if len(seeds) < 2:
        return None
    differences = np.array([found[one][seed] - found[other][seed] for seed in seeds])
    # Of one sample, "samples" flips signs; all of them where there are few.
    flips = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES
    )
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, rng=0
    ).confidence_interval
    return Contrast(
        one,
        other,
        tuple(seeds),
        tuple(differences.tolist()),
        float(differences.mean()),
        float(interval.low),
        float(interval.high),
        float(flips.pvalue),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number by Holm's method."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def draw_forest(contrasts: Sequence[Contrast], names: Sequence[str]) -> Figure:
    """Draw the ratio of distances of each contrast, with its interval and its seeds."""
    figure = Figure(figsize=(7, 1.2 + 0.55 * len(contrasts)), layout="constrained")
    axes = figure.subplots()
    for row, found in enumerate(contrasts):
        seeds = np.exp(found.differences)
        axes.plot(seeds, [row] * len(seeds), "o", color="0.7", markersize=4, zorder=1)
        axes.plot([math.exp(found.low), math.exp(found.high)], [row, row], color="C0", linewidth=2)
        axes.plot(found.ratio, row, "s", color="C0", markersize=7, zorder=2)
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(contrasts)), list(names))
    axes.set_ylim(len(contrasts) - 0.5, -0.5)
    axes.set_xlabel("distance of the first / of the second (below 1: the first is better)")
    axes.minorticks_off()
    ticks = (0.1, 0.2, 0.33, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10)
    low, high = axes.get_xlim()
    axes.set_xticks([t for t in ticks if low <= t <= high])
    axes.xaxis.set_major_formatter("{x:g}")
    return figure


def write_contrasts(folder: Path, pairs: Sequence[tuple[str, str]], metrics: Sequence[str]) -> str:
    """Write ``contrasts.json`` and the forest plot beside stored results; return a table.

    Args:
        folder: of stored results.
        pairs: methods to compare, fixed before anything ran.
        metrics: distances; the first is the one of the plot.
    """
    results = load_results(folder)
    lines = ["| distance | contrast | seeds | ratio | 95 % interval | p | p (Holm) |"]
    lines += ["|---|---|---|---|---|---|---|"]
    table = {}
    for number, metric in enumerate(metrics):
        found = endpoints(results, metric)
        made = [c for one, other in pairs if (c := contrast(found, one, other)) is not None]
        corrected = holm([c.p_value for c in made])
        table[metric] = [
            {**asdict(c), "ratio": c.ratio, "p_holm": p}
            for c, p in zip(made, corrected, strict=True)
        ]
        for c, p in zip(made, corrected, strict=True):
            interval = f"{math.exp(c.low):.2f} to {math.exp(c.high):.2f}"
            lines.append(
                f"| {metric} | {c.one} / {c.other} | {len(c.seeds)} | {c.ratio:.2f} | {interval} | "
                f"{c.p_value:.4f} | {p:.4f} |"
            )
        if number == 0 and made:
            labels = [f"{c.one}\n/ {c.other} (n = {len(c.seeds)})" for c in made]
            figure = draw_forest(made, labels)
            figure.savefig(folder / "forest.png", dpi=150)
    write_json(folder / "contrasts.json", table)
    return "\n".join(lines)
