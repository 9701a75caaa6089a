"""A sweep: a folder of cells that any number of processes work off together."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.cifar10.claims import holder
from benchmarks.cifar10.config import RunConfig, differences
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.folder import RunFolder, read_json, refuse_differences, write_json
from benchmarks.cifar10.protocol import Protocol

ROOT = Path(__file__).resolve().parents[2]
POLL = 0.5


@dataclass(frozen=True)
class Options:
    """What a worker passes on to the processes of its cells.

    Attributes:
        data: folder of images, or None.
        tensorboard: whether cells write its logs.
        poll: seconds between looks at processes and claims.
    """

    data: Path | None = None
    tensorboard: bool = False
    poll: float = POLL


class Sweep:
    """Cells below one folder.

    Args:
        path: of a sweep that :meth:`create` has made.

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
        self.cells: dict[str, RunConfig] = {
            values["name"]: RunConfig.from_dict(values) for values in stored["cells"]
        }

    @classmethod
    def create(cls, path: Path, protocol: Protocol) -> "Sweep":
        """Write the cells of a protocol down, or find that they are those written before.

        Raises:
            BenchmarkError: if the folder holds other cells, with the difference.
        """
        cells = protocol.cells()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BenchmarkError(f"{path} cannot be made: {error.strerror}.") from error
        plain = [cell.as_dict() for cell in cells]
        stored = read_json(path / "sweep.json")
        if stored is None:
            write_json(path / "sweep.json", {"description": protocol.description, "cells": plain})
        else:
            # By name, so that a difference names the cell.
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
        """Return how a cell stands; one whose process is gone is "interrupted"."""
        folder = self.folder(name)
        if not folder.exists():
            return {"state": "waiting", "step": 0, "steps": self.cells[name].steps}
        status = RunFolder(folder).status()
        if status["state"] == "running" and holder(folder) is None:
            status["state"] = "interrupted"
        return status

    def statuses(self) -> dict[str, dict[str, Any]]:
        """Return how all cells stand."""
        return {name: self.status(name) for name in self.cells}


class Worker:
    """Works off the cells of a sweep one after another, each in a process of its own.

    A process of its own gives each cell its own memory figure, and keeps a crash in one cell from
    the others.

    Args:
        sweep: whose cells.
        options: for the cells' processes.
        names: the cells to consider; all if None.
        taken: the cells that workers of this process run, which they share.
    """

    _lock = threading.Lock()

    def __init__(
        self,
        sweep: Sweep,
        options: Options,
        names: list[str] | None = None,
        taken: set[str] | None = None,
    ) -> None:
        self.sweep = sweep
        self.options = options
        self.names = list(sweep.cells) if names is None else names
        for name in self.names:
            sweep.config(name)
        self._taken = set() if taken is None else taken
        self._began = time.time()
        self._is_stopping = False
        self._process: subprocess.Popen[bytes] | None = None

    def work(self, report: Callable[[str], None], *, wait: bool) -> None:
        """Run cells until none is left.

        Args:
            report: called with a sentence when a cell begins and ends.
            wait: whether to wait for cells that others run, and take over what they leave undone.
        """
        while not self._is_stopping:
            name, others = self._take()
            if name is not None:
                try:
                    self._run(name, report)
                finally:
                    self._taken.discard(name)
            elif others and wait:
                time.sleep(self.options.poll)
            else:
                return

    def _take(self) -> tuple[str | None, bool]:
        """Return a free cell, if there is one, and whether any that is left is run elsewhere."""
        with self._lock:
            left = [name for name in self.names if self._is_left(name)]
            for name in left:
                if name not in self._taken and holder(self.sweep.folder(name)) is None:
                    self._taken.add(name)
                    return name, False
            return None, bool(left)

    def stop(self) -> None:
        """Let the present cell write a checkpoint and end, and begin no other."""
        self._is_stopping = True
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()

    def _is_left(self, name: str) -> bool:
        status = self.sweep.status(name)
        if status["state"] == "failed":
            # Tried again by a later call, not by this one.
            return status["updated"] < self._began
        return status["state"] not in ("finished", "diverged")

    def _run(self, name: str, report: Callable[[str], None]) -> None:
        folder = self.sweep.folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.cifar10", "cell", str(self.sweep.path), name]
        command += ["--tensorboard"] if self.options.tensorboard else []
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(
            part for part in (str(ROOT), environment.get("PYTHONPATH")) if part
        )
        threads = str(self.sweep.cells[name].threads)
        # Pools that torch's own setting does not reach.
        environment.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        if self.options.data is not None:
            environment["COMPOPT_DATA"] = str(self.options.data.resolve())
        report(f"{name}: begins")
        with (folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, start_new_session=True
            )
            while self._process.poll() is None:
                time.sleep(self.options.poll / 5)
        report(f"{name}: {self._outcome(name, self._process.returncode)}")

    def _outcome(self, name: str, code: int) -> str:
        status = self.sweep.status(name)
        if code == HELD_ELSEWHERE:
            return "run elsewhere"
        if code and status["state"] not in ("failed", "diverged") and not self._is_stopping:
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            last = _last_line(self.sweep.folder(name) / "output.txt")
            reason = f"The process ended by {cause}. {last}".strip()
            RunFolder(self.sweep.folder(name)).set_status(
                "failed", status.get("step", 0), self.sweep.cells[name].steps, reason=reason
            )
            status = self.sweep.status(name)
        reason = status.get("reason")
        return f"{status['state']}. {reason}" if reason else str(status["state"])


HELD_ELSEWHERE = 75
"""Exit status of a cell that another process holds."""


def _last_line(file: Path) -> str:
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    return lines[-1] if lines else ""


@contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on Ctrl-C and on the signal that schedulers send, instead of ending at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
