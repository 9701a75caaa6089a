"""The folder of a run.

- ``config.json``: the hyperparameters and the data, written once;
- ``environment.json``: where each part of the run was computed;
- ``log.jsonl``: a line every few steps: ``step``, ``seconds`` of training so far, ``value`` of the
  game, running totals ``gradient_calls``, ``mixed_products`` and ``num_iter``, ``memory_mib``;
- ``evaluations.jsonl``: a line for each evaluated set of samples: ``step``, ``seconds``,
  ``gradient_calls``, ``mixed_products``, ``generator`` ("raw" or "ema"), ``final``, and the result
  of `benchmarks.metrics.evaluate`;
- ``spectra.jsonl``: a line for each evaluation: ``step``, ``layers`` (the critic's normalised
  singular values by layer) and ``alarms`` of the collapse monitor;
- ``samples/``: grids of samples;
- ``status.json``: ``state`` ("running", "finished", "diverged", "failed", "interrupted"), ``step``,
  ``reason``;
- ``checkpoint.pt`` and ``checkpoint.previous.pt``.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cifar10.config import differences
from benchmarks.cifar10.errors import BenchmarkError
from compopt._files import replacing

LOG, EVALUATIONS, SPECTRA = "log.jsonl", "evaluations.jsonl", "spectra.jsonl"
DONE = ("finished", "diverged")


def write_json(file: Path, value: Any) -> None:
    """Write JSON atomically: readers see the old or the new file, never a part."""
    _replace(file, json.dumps(value, indent=1) + "\n")


def _replace(file: Path, text: str) -> None:
    try:
        with replacing(file) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise BenchmarkError(f"{file} could not be written: {error.strerror}.") from error


def read_json(file: Path) -> Any:
    """Return the contents of a JSON file; None if it does not exist.

    Raises:
        BenchmarkError: if it is damaged.
    """
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BenchmarkError(
            f"{file} cannot be read: {error}. Remove the run to redo it."
        ) from error


def write_once(file: Path, value: Any, what: str) -> None:
    """Write ``value``, or compare it with the existing file.

    Raises:
        BenchmarkError: if it differs; the message shows the difference.
    """
    stored = read_json(file)
    if stored is None:
        write_json(file, value)
        return
    # Convert the value as JSON does, for example tuples to lists.
    lines = differences(stored, json.loads(json.dumps(value)))
    refuse_differences(file.parent, lines, what)


def refuse_differences(folder: Path, lines: list[str], what: str) -> None:
    """Raise BenchmarkError with the first differences if there are any."""
    if lines:
        shown = "\n  ".join(lines[:20])
        more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
        raise BenchmarkError(
            f"{folder} was begun with other {what}:\n  {shown}{more}\n"
            "Go on with the stored ones, or use another folder."
        )


class RunFolder:
    """Files of one run.

    Args:
        path: the folder; created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "samples").mkdir(parents=True, exist_ok=True)

    def append(self, name: str, row: dict[str, Any]) -> None:
        """Add a line to one of the logs."""
        try:
            with (self.path / name).open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            raise BenchmarkError(
                f"{self.path / name} could not be written: {error.strerror}. Checkpoints are kept: "
                "make room and run the same command again."
            ) from error

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the complete lines of one of the logs."""
        return list(read_rows(self.path / name))

    def remove_drafts(self) -> None:
        """Remove temporary files of killed writers. Call it only while holding the folder."""
        for draft in self.path.glob("*.part"):
            draft.unlink(missing_ok=True)

    def rewind(self, step: int) -> None:
        """Drop lines after ``step`` from the logs, because the run resumes there."""
        for name in (LOG, EVALUATIONS, SPECTRA):
            file = self.path / name
            if not file.exists():
                continue
            kept = [row for row in read_rows(file) if row["step"] <= step]
            _replace(file, "".join(json.dumps(row) + "\n" for row in kept))

    def status(self) -> dict[str, Any]:
        """Return the status; {"state": "waiting"} before the run starts."""
        return read_json(self.path / "status.json") or {"state": "waiting", "step": 0}

    def set_status(self, state: str, step: int, steps: int, **more: Any) -> None:
        """Write the status of the run."""
        row = {"state": state, "step": step, "steps": steps, "updated": time.time(), **more}
        write_json(self.path / "status.json", row)

    @property
    def is_done(self) -> bool:
        """True if the run has finished or diverged."""
        return self.status()["state"] in DONE


def read_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete lines of a log; skip an incomplete line."""
    if not file.exists():
        return
    for line in file.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            # The process was killed while writing the line.
            continue
        yield row
