"""Cells: the seeds of a run together, and what of them may be compared."""

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.cifar10.report.runs import UNFINISHED, Row, Run

DISTANCES = ("fd_cifar10net_v1", "fd_effnetlite0_r96_p320")
"""The offline distances; conclusions need all of those that were measured."""

HOPELESS = 0.8
"""Share of the distance of uniform noise above which the order of distances means nothing."""


def is_headline(metric: str) -> bool:
    """Return whether a metric has a table of its own."""
    return metric in (*DISTANCES, "cs_cifar10net_v1") or (
        metric.startswith(("FID-", "IS-")) and not metric.endswith("_std")
    )


def better(metric: str) -> str:
    """Return "low" or "high", whichever is the better value."""
    high = ("cs_", "IS-", "precision_", "recall_", "density_", "coverage_")
    return "high" if metric.startswith(high) else "low"


def protocol_of(row: Row) -> tuple[object, ...]:
    """Return what must be equal for two evaluations to be comparable."""
    protocol = row.get("protocol", {})
    weights = tuple(sorted(row.get("weights_sha256", {}).items()))
    return row.get("n"), protocol.get("reference_sha256"), weights


@dataclass(frozen=True)
class Value:
    """A metric of a cell over its seeds.

    Attributes:
        values: one for each seed that has it.
        hopeless: whether the mean is near or beyond that of uniform noise.
    """

    values: tuple[float, ...]
    hopeless: bool = False

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, None of a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        digits = 2 if abs(self.mean) < 100 else 0
        text = f"{self.mean:.{digits}f}"
        return text if self.spread is None else f"{text} ± {self.spread:.{digits}f}"


@dataclass(frozen=True)
class Cell:
    """All seeds of one optimizer, loss and term.

    Attributes:
        key: optimizer, loss, term.
        runs: by seed.
        protocol: what an evaluation must have been made with to count.
    """

    key: tuple[str, str, str]
    runs: tuple[Run, ...]
    protocol: tuple[object, ...] | None

    def rows(self, generator: str) -> list[Row]:
        """Return the final evaluations that count, one for each finished seed."""
        finals = (run.final(generator) for run in self.runs)
        return [row for row in finals if row and protocol_of(row) == self.protocol]

    def value(self, metric: str, generator: str = "raw") -> Value | None:
        """Return a metric over the seeds, None if no seed has it."""
        rows = [row for row in self.rows(generator) if metric in row["metrics"]]
        if not rows:
            return None
        values = [float(row["metrics"][metric]) for row in rows]
        return _value(metric, values, [row.get("ceilings", {}).get(metric) for row in rows])

    def marks(self) -> list[str]:
        """Return what became of the seeds that have no result."""
        marks = []
        for state, sign in (("diverged", "†"), ("failed", "✗")):
            found = [run for run in self.runs if run.state == state]
            marks += [f"{sign} {state}" + _times(len(found), len(self.runs))] if found else []
        waiting = [run for run in self.runs if run.state in UNFINISHED]
        marks += ["… unfinished" + _times(len(waiting), len(self.runs))] if waiting else []
        return marks

    def per_step(self, name: str) -> float | None:
        """Return a running total of the log over its last step, mean over seeds."""
        shares = [
            float(run.log[-1][name]) / run.log[-1]["step"]
            for run in self.runs
            if run.log and run.log[-1].get("step") and name in run.log[-1]
        ]
        return statistics.fmean(shares) if shares else None

    @property
    def seconds(self) -> float:
        """Return how long the shortest of its runs trained."""
        ends = [float(run.log[-1]["seconds"]) for run in self.runs if run.log]
        return min(ends, default=0.0)

    def at_seconds(self, metric: str, seconds: float, generator: str = "raw") -> Value | None:
        """Return a metric of the curves after so many seconds, interpolated; None if not judged."""
        found, ceilings = [], []
        for run in self.runs:
            rows = [row for row in run.curve(generator) if metric in row["metrics"]]
            if run.state == "finished" and rows and rows[-1]["seconds"] >= 0.99 * seconds:
                times = [row["seconds"] for row in rows]
                found.append(float(np.interp(seconds, times, [r["metrics"][metric] for r in rows])))
                ceilings.append(rows[-1].get("ceilings", {}).get(metric))
        return _value(metric, found, ceilings) if found else None

    def peak(self, name: str) -> float | None:
        """Return the largest logged value."""
        values = [float(row[name]) for run in self.runs for row in run.log if name in row]
        return max(values) if values else None


def _value(metric: str, values: list[float], ceilings: list[float | None]) -> Value:
    ceiling = ceilings[0]
    is_beyond = ceiling is not None and statistics.fmean(values) > HOPELESS * ceiling
    return Value(tuple(values), metric in DISTANCES and is_beyond)


def _times(count: int, of: int) -> str:
    return f" ({count} of {of})" if of > 1 else ""


class Cells:
    """The cells of a sweep in table order.

    Args:
        runs: all of them.

    Attributes:
        protocol: the most common one; results under another do not count.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = list(runs)
        counts = Counter(
            protocol_of(row) for run in self.runs if (row := run.final("raw")) is not None
        )
        self.protocol = counts.most_common(1)[0][0] if counts else None

    @cached_property
    def by_key(self) -> dict[tuple[str, str, str], Cell]:
        """Cells by optimizer, loss and term."""
        grouped: dict[tuple[str, str, str], list[Run]] = {}
        for run in self.runs:
            grouped.setdefault(run.key, []).append(run)
        return {key: Cell(key, tuple(runs), self.protocol) for key, runs in grouped.items()}

    @cached_property
    def losses(self) -> list[str]:
        """Losses in order of appearance."""
        return list(dict.fromkeys(run.loss for run in self.runs))

    @cached_property
    def terms(self) -> list[str]:
        """Terms of the main table, "none" first."""
        main = set(self.optimizers)
        terms = dict.fromkeys(run.term for run in self.runs if run.optimizer in main)
        return sorted(terms, key=lambda term: term != "none")

    @cached_property
    def optimizers(self) -> list[str]:
        """Optimizers of the main table: those run with more than one term, or all."""
        seen: dict[str, set[str]] = {}
        for run in self.runs:
            seen.setdefault(run.optimizer, set()).add(run.term)
        several = [name for name, terms in seen.items() if len(terms) > 1]
        return several or list(seen)

    @cached_property
    def others(self) -> list[Cell]:
        """Cells of optimizers that have no column in the main table."""
        main = set(self.optimizers)
        return [cell for key, cell in self.by_key.items() if key[0] not in main]

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics of the final evaluations, headlines first."""
        rows = [row for cell in self.by_key.values() for row in cell.rows("raw")]
        names = dict.fromkeys(name for row in rows for name in row["metrics"])
        order = (*DISTANCES, "cs_cifar10net_v1")
        return sorted(
            names,
            key=lambda m: (order.index(m) if m in order else len(order), not is_headline(m)),
        )

    @cached_property
    def distances(self) -> list[str]:
        """The offline distances that were measured."""
        return [name for name in DISTANCES if name in self.metrics]

    def left_out(self) -> list[Run]:
        """Return finished runs whose final evaluation was made under another protocol."""
        finals = ((run, run.final("raw")) for run in self.runs)
        return [run for run, row in finals if row and protocol_of(row) != self.protocol]

    def best(self, metric: str, loss: str, generator: str = "raw") -> Cell | None:
        """Return the cell of a loss with the best mean, hopeless ones aside."""
        sign = 1 if better(metric) == "low" else -1
        found = [
            (sign * value.mean, index, cell)
            for index, (key, cell) in enumerate(self.by_key.items())
            if key[1] == loss and (value := cell.value(metric, generator)) and not value.hopeless
        ]
        return min(found)[2] if found else None
