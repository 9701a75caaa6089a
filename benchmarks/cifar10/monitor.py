"""Run the workers of a sweep in parallel, and show their progress on the terminal."""

import math
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.folder import DONE, EVALUATIONS, RunFolder
from benchmarks.cifar10.queue import Queue
from benchmarks.cifar10.stored import endpoint
from benchmarks.cifar10.sweep import Runner, Sweep, stop_on_signals

POLL = 0.5
"""Seconds between looks at what is left."""


def status_table(sweep: Sweep) -> Table:
    """Return a row for each cell."""
    table = Table("cell", "state", "step", "done", "reason", title=sweep.description)
    for name, status in sweep.statuses().items():
        share = f"{share_done(status):.0%}"
        row = (status["state"], str(status.get("step", 0)), share, status.get("reason", ""))
        table.add_row(name, *row)
    return table


def share_done(status: dict[str, Any]) -> float:
    """Return the share of its budget that a cell has used."""
    return 1.0 if status["state"] in DONE else float(status.get("share", 0))


def work(
    sweep: Sweep,
    data: Path | None,
    console: Console,
    *,
    workers: int,
    names: list[str] | None = None,
    storage: str | None = None,
) -> None:
    """Run the remaining cells of a sweep, possibly together with other processes.

    Args:
        sweep: the sweep.
        data: folder of images, or None.
        console: console for reports.
        workers: number of cells that run at once.
        names: the cells to run; all if None.
        storage: Optuna's storage, see :class:`Queue`.
    """
    names = list(sweep.cells) if names is None else names
    for name in names:
        sweep.config(name)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        bar = bars.add_task("cells", total=len(names), completed=_count_done(sweep, names))
        runner = Runner(sweep, data, bars.console.print)

        def run(name: str) -> float | None:
            if not sweep.is_done(name):
                runner.run(name)
            bars.update(bar, completed=_count_done(sweep, names))
            state = sweep.status(name)["state"]
            if state not in DONE:
                return None
            # A diverged run counts as infinite, however good it was before.
            rows = RunFolder(sweep.folder(name)).rows(EVALUATIONS)
            return math.inf if state == "diverged" else endpoint(rows) or 0.0

        def loop(queue: Queue) -> None:
            while not runner.is_stopping.is_set():
                if queue.run_next(names, run):
                    continue
                if not queue.is_running(names):
                    return
                runner.is_stopping.wait(POLL)

        queue = Queue(sweep, storage)
        queue.fill(names)
        threads = [threading.Thread(target=loop, args=(queue,)) for _ in range(workers)]
        with stop_on_signals(runner.stop):
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(POLL / 5)


def _count_done(sweep: Sweep, names: list[str]) -> int:
    return sum(sweep.is_done(name) for name in names)


def check_workers(workers: int) -> None:
    """Raise unless the number of workers is positive."""
    if workers < 1:
        raise BenchmarkError(f"`--workers` must be 1 or more, got {workers}.")
