"""Progress of a sweep on the terminal."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.cifar10.folder import DONE
from benchmarks.cifar10.sweep import Sweep, Worker


def status_table(sweep: Sweep) -> Table:
    """Return a row for each cell."""
    table = Table("cell", "state", "step", "seconds", "reason", title=sweep.description)
    for name, status in sweep.statuses().items():
        steps = f"{status.get('step', 0)}/{sweep.cells[name].steps}"
        seconds = f"{status['seconds']:.0f}" if "seconds" in status else ""
        table.add_row(name, status["state"], steps, seconds, status.get("reason", ""))
    return table


def share_done(status: dict[str, Any]) -> float:
    """Return which part of its budget a cell has used."""
    return 1.0 if status["state"] in DONE else float(status.get("share", 0))


def run_workers(sweep: Sweep, workers: Sequence[Worker], console: Console) -> None:
    """Let workers run side by side, with a bar for the sweep and one for each running cell."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        whole = bars.add_task("all cells", total=len(sweep.cells), note="")
        running: dict[str, object] = {}
        threads = [
            threading.Thread(target=worker.work, args=(bars.console.print,), kwargs={"wait": True})
            for worker in workers
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            statuses = sweep.statuses()
            shares = {name: share_done(status) for name, status in statuses.items()}
            done = sum(s["state"] in ("finished", "diverged", "failed") for s in statuses.values())
            bars.update(whole, completed=sum(shares.values()), note=f"{done}/{len(shares)} cells")
            for name, status in statuses.items():
                if status["state"] == "running" and name not in running:
                    running[name] = bars.add_task(name, total=1.0, note="")
                if name in running:
                    note = f"step {status.get('step', 0)}"
                    bars.update(running[name], completed=shares[name], note=note)  # type: ignore[arg-type]
                if name in running and status["state"] != "running":
                    bars.remove_task(running.pop(name))  # type: ignore[arg-type]
            time.sleep(workers[0].options.poll)
        for thread in threads:
            thread.join()
