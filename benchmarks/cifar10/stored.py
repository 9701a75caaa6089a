"""Small files of finished cells, committed as the source of the report."""

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cifar10.config import ENDPOINT
from benchmarks.cifar10.folder import EVALUATIONS, SPECTRA, RunFolder, write_json
from benchmarks.cifar10.sweep import Sweep
from compopt.penalties import CollapseRule

Points = list[tuple[dict[str, Any], float]]

KEPT = ("step", "generator", "final", "cost", "seconds", "gradient_calls", "mixed_products")
"""What of an evaluation a stored result keeps, beside its metrics and their bounds."""


def store_results(sweep: Sweep, out: Path) -> int:
    """Write a small file and a picture for each finished cell; return the number of cells.

    Args:
        sweep: the sweep.
        out: folder of the files, created if it does not exist.
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
        result = {
            "state": folder.status()["state"],
            "run": sweep.config(name).as_dict(),
            "monitor": monitored(folder.rows(SPECTRA)),
            "evaluations": rows,
        }
        write_json(out / f"{name}.json", result)
        pictures = sorted((folder.path / "samples").glob("step_*_ema.png"))
        if pictures:
            shutil.copyfile(pictures[-1], out / f"{name}.png")
    return len(done)


def monitored(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the lowest level of the critic's layers at each record, and the first alarm's step.

    Uses the current default rule, not the rule of the run.
    """
    rule, steps = CollapseRule(), [row["step"] for row in rows]
    levels = [min(map(rule.level, row["layers"].values())) for row in rows]
    alarms = [
        steps[index]
        for index in range(len(rows))
        for name in rows[index]["layers"]
        if rule.judge(name, steps[: index + 1], [r["layers"][name] for r in rows[: index + 1]])
    ]
    return {"levels": [round(level, 3) for level in levels], "alarm": min(alarms, default=None)}


@dataclass(frozen=True)
class Result:
    """A stored cell.

    Attributes:
        file: its file; a picture of samples may be beside it.
        state: "finished" or "diverged".
        run: its hyperparameters; older files may lack some.
        evaluations: evaluations in the order of training.
        monitor: ``levels`` of the critic's spectra and the step of the first ``alarm``, if any;
            empty in older files.
    """

    file: Path
    state: str
    run: dict[str, Any]
    evaluations: list[dict[str, Any]]
    monitor: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Name of the method, which all its seeds and trials share."""
        return f"{self.run['optimizer_name']}_{self.run['loss']}_{self.run['term_name']}"

    @property
    def is_trial(self) -> bool:
        """True if it is a trial of a search."""
        return bool(self.run.get("choices"))

    @property
    def picture(self) -> Path | None:
        """Picture of the averaged generator's final samples, or None."""
        file = self.file.with_suffix(".png")
        return file if file.exists() else None

    @property
    def hours(self) -> float:
        """Core-hours of training."""
        return max((row.get("seconds", 0.0) for row in self.evaluations), default=0.0) / 3600

    @property
    def metrics(self) -> dict[str, None]:
        """Names of its metrics, in order."""
        return {name: None for row in self.evaluations for name in row["metrics"]}

    def ceiling(self, metric: str) -> float:
        """Return the score of uniform noise; infinite if it was not measured."""
        found = (row["ceilings"] for row in self.evaluations)
        return max((row[metric] for row in found if metric in row), default=math.inf)

    def endpoint(self, metric: str) -> float | None:
        """Return the mean log distance at the last points; None if the metric was not measured.

        A diverged run gets the distance of noise.
        """
        if self.state == "diverged":
            return math.log(self.ceiling(metric))
        return endpoint(self.evaluations, metric)


def curve(rows: list[dict[str, Any]], metric: str | None = None, generator: str = "ema") -> Points:
    """Return the evaluations during training, each with its value of a metric.

    Args:
        rows: evaluations of a run.
        metric: name of the metric, the first of each row if None; rows without it are skipped.
        generator: "raw", or "ema" for its average.
    """
    return [
        (row, row["metrics"][metric or next(iter(row["metrics"]))])
        for row in rows
        if row["generator"] == generator
        and not row["final"]
        and (metric in row.get("metrics", ()) if metric else row.get("metrics"))
    ]


def endpoint(rows: list[dict[str, Any]], metric: str | None = None) -> float | None:
    """Return the averaged generator's mean log distance at the last points, or None."""
    last = [value for _, value in curve(rows, metric)][-ENDPOINT:]
    return sum(map(math.log, last)) / len(last) if last else None


def load_results(folder: Path) -> list[Result]:
    """Return the stored results of a folder, sorted by name."""
    found = []
    for file in sorted(folder.glob("*.json")):
        values = json.loads(file.read_text())
        if "run" in values:
            parts = (values[name] for name in ("state", "run", "evaluations"))
            found.append(Result(file, *parts, values.get("monitor", {})))
    return found


def endpoints(results: list[Result], metric: str) -> dict[str, dict[int, float]]:
    """Return the endpoints by method and seed, without trials."""
    found: dict[str, dict[int, float]] = {}
    for result in results:
        value = result.endpoint(metric)
        if value is not None and not result.is_trial:
            found.setdefault(result.method, {})[result.run["seed"]] = value
    return found
