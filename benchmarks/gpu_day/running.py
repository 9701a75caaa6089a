"""Tasks with limits of time, whose outcomes are written at once and not repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TAIL = 60
"""Lines of a task's output that are kept."""


@dataclass(frozen=True)
class Task:
    """Something that a stage does, in a process of its own.

    Attributes:
        name: unique in the stage.
        command: arguments of Python.
        seconds: after which it is ended.
        results: JSON files that it writes, which go into its outcome.
        environment: variables besides those of this process.
        repeats: whether it is run each time, as what it depends on may have changed.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    results: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    repeats: bool = False


class Record:
    """The outcomes of a stage, in one file that is whole at any time.

    Args:
        path: of the file. Outcomes that are there already are read.
        conditions: under which new ones are made; each has its own.
    """

    def __init__(self, path: Path, conditions: Mapping[str, Any]) -> None:
        self._path = path
        self._conditions = dict(conditions)
        self.outcomes: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.outcomes = json.loads(path.read_text())["tasks"]

    def is_done(self, task: Task) -> bool:
        """Return whether the task, as it is now, has succeeded before."""
        outcome = self.outcomes.get(task.name, {})
        return outcome.get("state") == "done" and outcome["command"] == list(task.command)

    def note(self, task: Task, outcome: dict[str, Any]) -> None:
        """Write the outcome of a task."""
        self.outcomes[task.name] = {
            "command": list(task.command),
            "conditions": self._conditions,
            **outcome,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"tasks": self.outcomes}, indent=1) + "\n")
        part.replace(self._path)


def run_task(task: Task, seconds: float, log: Path) -> dict[str, Any]:
    """Run a task for at most so many seconds; return its outcome, which has its results.

    Its output goes to ``log``. What it started ends with it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start, state = time.monotonic(), "done"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *task.command],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **task.environment},
            # A group of its own, which can be ended as a whole.
            start_new_session=True,
        )
        try:
            if process.wait(seconds):
                state = "failed"
        except subprocess.TimeoutExpired:
            state = "out of time"
        finally:
            _end(process)
    outcome = {
        "state": state,
        "exit_status": process.returncode,
        "seconds": round(time.monotonic() - start, 1),
        "output": log.read_text(errors="replace").splitlines()[-TAIL:],
        "results": {},
    }
    for path in task.results:
        # Also what a task has written that failed later.
        if path.exists():
            outcome["results"][path.name] = json.loads(path.read_text())
        elif state == "done":
            outcome["state"] = "failed"
            outcome["output"].append(f"It did not write {path.name}.")
    return outcome


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a task, first by asking."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def run_stage(
    tasks: Sequence[Task],
    record: Record,
    seconds: float,
    logs: Path,
    say: Callable[[str], None] = print,
) -> bool:
    """Run what is not done yet, each task whatever became of the others, for so many seconds.

    Returns:
        Whether all is done.
    """
    end = time.monotonic() + seconds
    for task in tasks:
        if record.is_done(task) and not task.repeats:
            say(f"{task.name}: done before")
            continue
        left = end - time.monotonic()
        if left < 1:
            say(f"{task.name}: not begun, as the stage's time is over")
            continue
        for path in task.results:
            path.unlink(missing_ok=True)
        outcome = run_task(task, min(task.seconds, left), logs / f"{task.name}.log")
        record.note(task, outcome)
        say(f"{task.name}: {outcome['state']} after {outcome['seconds']} s")
        if outcome["state"] != "done":
            say("\n".join(f"    {line}" for line in outcome["output"][-15:]))
    return all(map(record.is_done, tasks))
