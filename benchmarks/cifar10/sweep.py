"""A sweep: a folder of cells, and a runner that runs each cell in its own process."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.cifar10.config import RunConfig, differences
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.folder import (
    DONE,
    RunFolder,
    read_json,
    refuse_differences,
    write_json,
)
from benchmarks.cifar10.lock import is_held
from benchmarks.cifar10.protocol import Protocol
from benchmarks.cifar10.search import Space

ROOT = Path(__file__).resolve().parents[2]


class Sweep:
    """Cells below one folder.

    Args:
        path: folder of a sweep that :meth:`create` has created.

    Raises:
        BenchmarkError: if there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        stored = read_json(path / "sweep.json")
        if stored is None:
            raise BenchmarkError(
                f"{path} is no sweep: it has no sweep.json. Make one with "
                f"`python -m benchmarks.cifar10 init PROTOCOL --out {path}`."
            )
        self.description: str = stored["description"]
        self.contrasts: list[list[str]] = stored.get("contrasts", [])
        self.cells: dict[str, RunConfig] = {
            values["name"]: RunConfig.from_dict(values) for values in stored["cells"]
        }
        self.spaces = {
            method: {name: Space(**space) for name, space in spaces.items()}
            for method, spaces in stored.get("spaces", {}).items()
        }

    @classmethod
    def create(cls, path: Path, protocol: Protocol) -> "Sweep":
        """Create a sweep with the cells of a protocol, or open it if its cells are the same.

        Raises:
            BenchmarkError: if the folder holds other cells; the message shows the difference.
        """
        cells = protocol.cells()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchmarkError(f"{path} cannot be made: {error.strerror}.") from error
        plain = [cell.as_dict() for cell in cells]
        stored = read_json(path / "sweep.json")
        if stored is None:
            spaces = {
                method: {name: dataclasses.asdict(space) for name, space in own.items()}
                for method, own in protocol.spaces().items()
            }
            rows = {
                "description": protocol.description,
                "cells": plain,
                "spaces": spaces,
                "contrasts": protocol.contrasts,
            }
            write_json(path / "sweep.json", rows)
        else:
            # Compare by name, so that messages name the cell.
            before, now = ({cell["name"]: cell for cell in c} for c in (stored["cells"], plain))
            lines = differences(before, now)
            refuse_differences(path, lines, "hyperparameters")
        return cls(path)

    def folder(self, name: str) -> Path:
        """Return the folder of a cell."""
        return self.path / "cells" / name

    def config(self, name: str) -> RunConfig:
        """Return the configuration of a cell."""
        if name not in self.cells:
            raise BenchmarkError(f"There is no cell {name!r} in {self.path}: {sorted(self.cells)}.")
        return self.cells[name]

    def status(self, name: str) -> dict[str, Any]:
        """Return the status of a cell; "interrupted" if its process is gone."""
        folder = self.folder(name)
        if not folder.exists():
            return {"state": "waiting", "step": 0, "steps": self.cells[name].steps}
        status = RunFolder(folder).status()
        if status["state"] == "running" and not is_held(folder):
            status["state"] = "interrupted"
        return status

    def is_done(self, name: str) -> bool:
        """Return True if a cell has finished or diverged."""
        return self.status(name)["state"] in DONE

    def statuses(self) -> dict[str, dict[str, Any]]:
        """Return the status of all cells, by name."""
        return {name: self.status(name) for name in self.cells}


class Runner:
    """Runs each cell in its own process.

    This separates memory measurements, and a crash in one cell does not affect the others.

    Args:
        sweep: the sweep.
        data: folder of images, or None.
        report: called with a sentence when a cell starts and ends.
    """

    def __init__(self, sweep: Sweep, data: Path | None, report: Callable[[str], None]) -> None:
        self.sweep = sweep
        self.data = data
        self.report = report
        self.is_stopping = threading.Event()
        self._processes: set[subprocess.Popen[bytes]] = set()

    def stop(self) -> None:
        """Make running cells write a checkpoint and exit, and start no others."""
        self.is_stopping.set()
        for process in list(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    def run(self, name: str) -> str:
        """Run a cell; return its state afterwards."""
        folder = self.sweep.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.cifar10", "cell", str(self.sweep.path), name]
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (str(ROOT), environment.get("PYTHONPATH")) if part
        )
        threads = str(self.sweep.cells[name].threads)
        # Limit thread pools that torch's own setting does not control.
        environment.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        if self.data is not None:
            environment["COMPOPT_DATA"] = str(self.data.resolve())
        self.report(f"{name}: begins")
        with (folder / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, start_new_session=True
            )
            self._processes.add(process)
            if self.is_stopping.is_set():
                # The stop was requested while the process started.
                process.terminate()
            process.wait()
            self._processes.discard(process)
        state, sentence = self._outcome(name, process.returncode)
        self.report(f"{name}: {sentence}")
        return state

    def _outcome(self, name: str, code: int) -> tuple[str, str]:
        status = self.sweep.status(name)
        if code == HELD_ELSEWHERE:
            return "held", "run elsewhere"
        if code and status["state"] not in ("failed", "diverged") and not self.is_stopping.is_set():
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            last = _last_line(self.sweep.folder(name) / "output.txt")
            reason = f"The process ended by {cause}. {last}".strip()
            RunFolder(self.sweep.folder(name)).set_status(
                "failed", status.get("step", 0), self.sweep.cells[name].steps, reason=reason
            )
            status = self.sweep.status(name)
        state, reason = str(status["state"]), status.get("reason")
        return state, f"{state}. {reason}" if reason else state


HELD_ELSEWHERE = 75
"""Exit status of a cell that another process holds."""


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    return lines[-1] if lines else ""


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on Ctrl-C and on the schedulers' signal, instead of exiting immediately."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
