"""Cost of a step: time, backward passes, memory, and error of the step.

Run ``python -m benchmarks.step_cost``. All contestants take turns in one process, each on its own
copy of the networks, and times are compared within a round, so that a noisy machine disturbs all
alike. Peak memory is that of one process each, with all that allocators and libraries keep, and
that of tensors alone, which is what counts on a GPU.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.accuracy import step_error
from benchmarks.contestants import CONTESTANTS
from benchmarks.environment import conditions
from benchmarks.live_memory import LiveBytes
from benchmarks.step_cost_report import draw, table
from benchmarks.workloads import WORKLOADS, sizes

WARM_UP = 3
RESULTS = Path(__file__).parent / "results"


class Run:
    """One contestant in a game of its own."""

    def __init__(self, key: str, workload: str) -> None:
        self._play = WORKLOADS[workload].start()
        self._random = torch.Generator().manual_seed(1)
        players = self._play.min_player, self._play.max_player
        self.params = [param for player in players for param in player.parameters()]
        self._step = CONTESTANTS[key].build(self._play, WORKLOADS[workload].lr)
        self.is_in_loss = False
        self.draw()

    def draw(self) -> None:
        """Draw the next batch: a batch used twice would be learned, which makes steps harder."""
        self._batch = self._play.draw(self._random)

    def step(self) -> None:
        """Take one step."""
        self._step(self._loss)

    def _loss(self, share: float = 1.0) -> Tensor:
        self.is_in_loss = True
        loss = self._play.loss_of_part(self._batch, share)
        self.is_in_loss = False
        return loss


def seconds(function: Callable[[], None]) -> float:
    """Return how long ``function`` takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def backward_calls(run: Run) -> int:
    """Return how many times one step enters the autograd engine, what the loss does aside."""
    calls = 0
    originals = torch.autograd.grad, torch.autograd.backward

    def counting(original: Callable) -> Callable:
        def counted(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += not run.is_in_loss
            return original(*args, **kwargs)

        return counted

    torch.autograd.grad, torch.autograd.backward = map(counting, originals)
    try:
        run.step()
    finally:
        torch.autograd.grad, torch.autograd.backward = originals
    return calls


def started(keys: list[str], workload: str, rows: dict[str, dict]) -> dict[str, Run]:
    """Return the runs that survive a few steps; note what the others failed with."""
    runs = {}
    for key in keys:
        run = Run(key, workload)
        try:
            for _ in range(WARM_UP):
                run.draw()
                run.step()
        except RuntimeError as error:
            # What a user of that package would see.
            rows[key]["failure"] = str(error).splitlines()[0]
        else:
            runs[key] = run
    return runs


def measure(keys: list[str], workload: str, rounds: int) -> dict[str, dict]:
    """Time the contestants in turns; return figures or a failure for each."""
    rows: dict[str, dict] = {key: {"name": CONTESTANTS[key].name} for key in keys}
    runs = started(keys, workload, rows)
    times: dict[str, list[float]] = {key: [] for key in runs}
    for index in track(range(rounds), description=workload):
        # Each round starts with another contestant, so that none always follows the same one.
        order = list(runs)
        for key in order[index % len(order) :] + order[: index % len(order)]:
            runs[key].draw()
            times[key].append(seconds(runs[key].step))
    for key, run in runs.items():
        pairs = zip(times[key], times["adam"], strict=True)
        rows[key] |= {
            "median_s": statistics.median(times[key]),
            "p20_s": sorted(times[key])[rounds // 5],
            "p80_s": sorted(times[key])[rounds - 1 - rounds // 5],
            "relative_to_adam": statistics.median(a / b for a, b in pairs),
            "backward_calls": backward_calls(run),
            "times_s": [round(value, 5) for value in times[key]],
        }
    for key in track(runs, description="memory and error"):
        rows[key]["peak_memory_gb"] = measure_memory(key, workload)
        rows[key]["peak_tensors_gb"] = peak_tensors(key, workload)
        if CONTESTANTS[key].is_acgd:
            rows[key]["step_error"] = step_error(CONTESTANTS[key], WORKLOADS[workload])
    return rows


def measure_memory(key: str, workload: str) -> float | None:
    """Return the peak resident memory of a process that takes a few steps, in GB."""
    command = [sys.executable, "-m", "benchmarks.step_cost", "--memory-of", key]
    command += ["--workloads", workload]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def print_peak_memory(key: str, workload: str) -> None:
    """Take a few steps and print the peak resident memory of this process in GB."""
    run = Run(key, workload)
    for _ in range(4):
        run.draw()
        run.step()
    # Not `getrusage`, whose maximum goes back to before this program was started.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(int(peak.group(1)) * 1024 / 1e9)


def peak_tensors(key: str, workload: str) -> float:
    """Return what tensors occupy at most in a few steps, in GB, parameters included."""
    run = Run(key, workload)
    with LiveBytes(run.params) as live:
        for _ in range(2):
            run.draw()
            run.step()
    return live.peak / 1e9


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write a data file and a plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each contestant")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--memory-of", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.memory_of:
        print_peak_memory(args.memory_of, args.workloads[0])
        return
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "step_cost.json"
    # Workloads that are not measured this time keep their figures.
    data = json.loads(path.read_text()) if path.exists() else {"workloads": {}}
    for workload in args.workloads:
        rows = measure(list(CONTESTANTS), workload, args.rounds)
        Console().print(table(WORKLOADS[workload].name, rows))
        data["workloads"][workload] = {
            "title": WORKLOADS[workload].name,
            "lr": WORKLOADS[workload].lr,
            **sizes(WORKLOADS[workload]),
            "rounds": args.rounds,
            "conditions": conditions(("CGDs", "torch-cgd")),
            "rows": rows,
        }
        path.write_text(json.dumps(data, indent=1) + "\n")
    draw(data["workloads"], args.out / "step_cost.png")
    print(f"Written to {args.out}: step_cost.json, step_cost.png")


if __name__ == "__main__":
    main()
