"""Read the folders of runs; nothing in them is required but the configuration."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]

MERGED = ("metrics", "floors", "floor_stds", "ceilings")
"""Parts of an evaluation that later opinions add to."""

UNFINISHED = ("waiting", "running", "interrupted")


@dataclass(frozen=True)
class Run:
    """One run as its folder tells it.

    Attributes:
        path: the folder; need not exist for a run that waits.
        config: all hyperparameters.
        status: with "state", and a "reason" where something went wrong.
        log: rows of training, by step.
        evaluations: rows of judged samples, by step.
        spectra: rows of the critic's spectra, by step.
        opinions: rows of samples judged once more at the end.
        environment: where its parts were computed.
    """

    path: Path
    config: Row
    status: Row
    log: list[Row] = field(default_factory=list)
    evaluations: list[Row] = field(default_factory=list)
    spectra: list[Row] = field(default_factory=list)
    opinions: list[Row] = field(default_factory=list)
    environment: list[Row] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the cell with its seed."""
        return str(self.config["name"])

    @property
    def optimizer(self) -> str:
        """Name of the optimizer with its settings, a column of the tables."""
        return str(self.config["optimizer_name"])

    @property
    def kind(self) -> str:
        """Kind of the optimizer, which has a colour of its own."""
        return str(self.config["optimizer"]["kind"])

    @property
    def loss(self) -> str:
        """Kind of the loss."""
        return str(self.config["loss"])

    @property
    def term(self) -> str:
        """Name of the explicit term, a row of the tables."""
        return str(self.config["term_name"])

    @property
    def key(self) -> tuple[str, str, str]:
        """What all seeds of a cell share."""
        return self.optimizer, self.loss, self.term

    @property
    def state(self) -> str:
        """Of the status: finished, diverged, failed, or one of `UNFINISHED`."""
        return str(self.status["state"])

    def final(self, generator: str) -> Row | None:
        """Return the evaluation that tables take, of the "raw" or "ema" generator.

        With the metrics of later opinions; ``n_of`` has their numbers of images, ``other_weights``
        their weights.
        """
        rows = [r for r in self.evaluations if r["generator"] == generator and r.get("final")]
        if not rows or self.state != "finished":
            return None
        merged = {**rows[-1], "n_of": {}, "other_weights": {}}
        for row in self.opinions:
            if row["generator"] == generator and row["step"] == merged["step"]:
                new = [name for name in row["metrics"] if name not in rows[-1]["metrics"]]
                merged["n_of"] |= dict.fromkeys(new, row["n"])
                merged["other_weights"] |= row["weights_sha256"]
                for key in MERGED:
                    found = row.get(key, {})
                    more = {name: found[name] for name in new if name in found}
                    merged[key] = merged.get(key, {}) | more
        return merged

    def curve(self, generator: str) -> list[Row]:
        """Return the evaluations during training."""
        return [
            row
            for row in self.evaluations
            if row["generator"] == generator and not row.get("final") and row.get("metrics")
        ]

    def last_sample(self, generator: str = "raw") -> Path | None:
        """Return the last picture of samples."""
        pictures = sorted((self.path / "samples").glob(f"step_*_{generator}.png"))
        return pictures[-1] if pictures else None


def _json(file: Path, default: Any) -> Any:
    return json.loads(file.read_text()) if file.exists() else default


def _rows(file: Path) -> list[Row]:
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            # A process that is killed leaves half of its last line.
            continue
    return sorted(rows, key=lambda row: row["step"])


def _load(path: Path, config: Row) -> Run:
    environment = _json(path / "environment.json", [])
    return Run(
        path=path,
        config=config,
        status=_json(path / "status.json", {"state": "waiting", "step": 0}),
        log=_rows(path / "log.jsonl"),
        evaluations=_rows(path / "evaluations.jsonl"),
        spectra=_rows(path / "spectra.jsonl"),
        opinions=_rows(path / "opinions.jsonl"),
        environment=environment if isinstance(environment, list) else [environment],
    )


@dataclass(frozen=True)
class Sweep:
    """All runs of a folder.

    Attributes:
        description: of the protocol, in a line.
        runs: in the protocol's order, then others by name.
    """

    description: str
    runs: list[Run]


def load_sweep(folder: Path) -> Sweep:
    """Return the runs of a sweep, those that wait to be run too.

    Args:
        folder: with ``sweep.json`` and ``cells/``, or with folders of runs at any depth.

    Raises:
        FileNotFoundError: if there is no run in it.
    """
    sweep = _json(folder / "sweep.json", {"description": "", "cells": []})
    runs = {cell["name"]: _load(folder / "cells" / cell["name"], cell) for cell in sweep["cells"]}
    for file in sorted(folder.rglob("config.json")):
        written = _json(file, {})
        config = written.get("run", written)
        if "optimizer_name" in config and config["name"] not in runs:
            runs[config["name"]] = _load(file.parent, config)
    if not runs:
        raise FileNotFoundError(
            f"There are no runs in {folder}: neither sweep.json nor config.json."
        )
    return Sweep(sweep["description"], list(runs.values()))
