"""Cost of a step: time, backward passes, memory, and error of the step.

Run ``python -m benchmarks.step_cost``. All contestants take turns in one process, each on its own
copy of the networks, and times are compared within a round, so that noise of the machine affects
all equally. Peak memory is measured twice: of a separate process, including memory kept by
allocators and libraries, and of tensors only. With ``--device cuda`` clocks wait for the device,
memory is the device's, and some optimizers replay their steps as a graph. Packages that are not
installed are left out with a message.
"""

import argparse
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from benchmarks.accuracy import step_error
from benchmarks.contestants import CONTESTANTS, Replayed, contestants_on
from benchmarks.harness import (
    CPU,
    arguments,
    clock,
    conditions,
    device_of,
    in_turns,
    ratios,
    read_result,
    show,
    spread,
    write_over,
    write_result,
)
from benchmarks.live_memory import LiveBytes, device_peak
from benchmarks.step_cost_report import HEADS, cells, draw
from benchmarks.workloads import WORKLOADS, sizes

WARM_UP = 3


class Run:
    """One contestant with its own copy of the game."""

    def __init__(
        self,
        key: str,
        workload: str,
        device: torch.device = CPU,
        batch_size: int | None = None,
    ) -> None:
        self._play = WORKLOADS[workload].start(batch_size).on(device)
        self._random = torch.Generator().manual_seed(1)
        players = self._play.min_player, self._play.max_player
        self.params = [param for player in players for param in player.parameters()]
        self._step = CONTESTANTS[key].build(self._play, WORKLOADS[workload].lr)
        self.is_in_loss = False
        self._batch = self._play.draw(self._random)

    @property
    def is_replayed(self) -> bool:
        """True if steps are replayed as a device graph, in which calls cannot be counted."""
        return isinstance(self._step, Replayed)

    def draw(self) -> None:
        """Draw the next batch. Reusing one would overfit to it, which makes steps harder."""
        write_over(self._batch, self._play.draw(self._random))

    def step(self) -> None:
        """Take one step."""
        self._step(self._loss)

    def _loss(self, share: float = 1.0) -> Tensor:
        self.is_in_loss = True
        loss = self._play.loss_of_part(self._batch, share)
        self.is_in_loss = False
        return loss


def backward_calls(run: Run) -> int:
    """Return how many times one step calls the autograd engine, without calls of the loss."""
    calls = depth = 0
    originals = torch.autograd.grad, torch.autograd.backward

    def counting(original: Callable) -> Callable:
        def counted(*args: object, **kwargs: object) -> object:
            nonlocal calls, depth
            # Count outer calls only: under a default device torch calls the function recursively.
            calls += not run.is_in_loss and depth == 0
            depth += 1
            try:
                return original(*args, **kwargs)
            finally:
                depth -= 1

        return counted

    torch.autograd.grad, torch.autograd.backward = map(counting, originals)
    try:
        run.step()
    finally:
        torch.autograd.grad, torch.autograd.backward = originals
    return calls


def started(keys: list[str], rows: dict[str, dict], start: Callable[[str], Run]) -> dict[str, Run]:
    """Return the runs that complete a few steps; store the error of those that fail."""
    runs = {}
    for key in keys:
        try:
            run = start(key)
            take_steps(run, WARM_UP + 1)
        except ImportError:
            print(f"{CONTESTANTS[key].name} is left out: {CONTESTANTS[key].package} is missing.")
            del rows[key]
        except RuntimeError as error:
            # Report the package's own error, as its users would see it.
            rows[key]["failure"] = str(error).splitlines()[0]
        else:
            runs[key] = run
    return runs


def measure(
    keys: list[str],
    workload: str,
    rounds: int,
    device: torch.device = CPU,
    batch_size: int | None = None,
) -> dict[str, dict]:
    """Time the contestants in turns; return figures or an error for each."""
    rows: dict[str, dict] = {key: {"name": CONTESTANTS[key].name} for key in keys}

    def start(key: str) -> Run:
        return Run(key, workload, device, batch_size)

    runs = started(keys, rows, start)

    def prepare(key: str) -> None:
        runs[key].draw()

    times = in_turns(
        {key: run.step for key, run in runs.items()},
        rounds,
        seconds=clock(device),
        prepare=prepare,
        what=workload,
    )
    for key, run in runs.items():
        middle, low, high = spread(times[key])
        rows[key] |= {
            **{"median_s": middle, "p20_s": low, "p80_s": high},
            "relative_to_adam": statistics.median(ratios(times[key], times["adam"])),
            "backward_calls": None if run.is_replayed else backward_calls(run),
            "times_s": [round(value, 5) for value in times[key]],
        }
    for key in track(list(runs), description="memory and error"):
        # Free each run before the next measurement: replayed ones hold their graph's memory.
        replayed = runs.pop(key).is_replayed
        rows[key]["peak_memory_gb"] = (
            device_peak(device, partial(start_and_take, start, key)) / 1e9
            if device.type == "cuda"
            else measure_memory(key, workload, batch_size)
        )
        if not replayed:
            rows[key]["peak_tensors_gb"] = peak_tensors(start(key))
        if CONTESTANTS[key].is_acgd:
            game = WORKLOADS[workload]
            game = replace(game, batch_size=batch_size or game.batch_size)
            rows[key]["step_error"] = step_error(CONTESTANTS[key], game, device)
    return rows


def measure_memory(key: str, workload: str, batch_size: int | None = None) -> float | None:
    """Return the peak resident memory of a process that takes a few steps, in GB."""
    command = [sys.executable, "-m", "benchmarks.step_cost", "--memory-of", key]
    command += ["--workloads", workload]
    command += [] if batch_size is None else ["--batch-size", str(batch_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def take_steps(run: Run, count: int) -> None:
    """Take steps on new batches."""
    for _ in range(count):
        run.draw()
        run.step()


def start_and_take(start: Callable[[str], Run], key: str) -> None:
    """Take a few steps of a new run."""
    take_steps(start(key), WARM_UP + 2)


def print_peak_memory(key: str, workload: str, batch_size: int | None) -> None:
    """Take a few steps and print the peak resident memory of this process in GB."""
    take_steps(Run(key, workload, batch_size=batch_size), 4)
    # Not `getrusage`: its maximum includes the time before this program started.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(int(peak.group(1)) * 1024 / 1e9)


def peak_tensors(run: Run) -> float:
    """Return the peak memory of tensors in a few steps, in GB, including parameters."""
    with LiveBytes(run.params) as live:
        take_steps(run, 2)
    return live.peak / 1e9


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write a data file and a plot."""
    parser = arguments(__doc__, rounds=15, device=True)
    parser.add_argument("--optimizers", nargs="+", choices=CONTESTANTS, help="besides Adam")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--batch-size", type=int, help="default: the workload's")
    parser.add_argument("--memory-of", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.memory_of:
        print_peak_memory(args.memory_of, args.workloads[0], args.batch_size)
        return
    device = device_of(parser, args)
    keys = ["adam", *(key for key in args.optimizers or contestants_on(device) if key != "adam")]
    stem = "step_cost" if device.type == "cpu" else f"step_cost_{device.type}"
    path = args.out / f"{stem}.json"
    # Keep the figures of workloads that are not measured in this run.
    data = read_result(path, {"workloads": {}})
    for workload in args.workloads:
        rows = measure(keys, workload, args.rounds, device, args.batch_size)
        show(WORKLOADS[workload].name, HEADS, map(cells, rows.values()))
        data["workloads"][workload] = {
            "title": WORKLOADS[workload].name,
            "lr": WORKLOADS[workload].lr,
            **sizes(WORKLOADS[workload]),
            **({} if args.batch_size is None else {"batch_size": args.batch_size}),
            "rounds": args.rounds,
            "conditions": conditions(("CGDs", "torch-cgd")),
            "rows": rows,
        }
        write_result(path, {"conditions": conditions(), **data})
    draw(data["workloads"], args.out / f"{stem}.png")


if __name__ == "__main__":
    main()
