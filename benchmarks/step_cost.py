"""Cost of a step on the published small CIFAR-10 WGAN: time, products, memory.

Run ``python -m benchmarks.step_cost``. All contestants take turns in one process, each on its own
copy of the networks, and times are compared within a round, so that a noisy machine disturbs all
alike. Peak memory is measured in one process each.
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
from rich.table import Table

from benchmarks.contestants import CONTESTANTS, LossFn, Step
from benchmarks.environment import conditions
from benchmarks.networks import (
    SmallCritic,
    SmallGenerator,
    num_parameters,
    random_batch,
    wasserstein_loss,
)

BATCH_SIZE = 64
WARM_UP = 3
RESULTS = Path(__file__).parent / "results"


class Run:
    """One contestant with its own networks and data."""

    def __init__(self, key: str, *, last_bias: bool) -> None:
        torch.manual_seed(0)
        self.generator = SmallGenerator()
        self.critic = SmallCritic(last_bias=last_bias)
        self._random = torch.Generator().manual_seed(1)
        self._step: Step = CONTESTANTS[key].build(self.generator, self.critic)
        self.draw()

    def draw(self) -> None:
        """Draw the next batch: a batch used twice would be learned, which makes steps harder."""
        latent_size = self.generator.latent_size
        self.images, self.noise = random_batch(BATCH_SIZE, latent_size, self._random)

    def loss(self) -> torch.Tensor:
        """Return the loss on the batch."""
        return wasserstein_loss(self.generator, self.critic, self.images, self.noise)

    def step(self) -> None:
        """Take one step."""
        loss_fn: LossFn = self.loss
        self._step(loss_fn)


def seconds(function: Callable[[], None]) -> float:
    """Return how long ``function`` takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def backward_calls(run: Run) -> int:
    """Return how many times one step enters the autograd engine."""
    calls = 0
    originals = torch.autograd.grad, torch.autograd.backward

    def counting(original: Callable) -> Callable:
        def counted(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            return original(*args, **kwargs)

        return counted

    torch.autograd.grad, torch.autograd.backward = map(counting, originals)
    try:
        run.step()
    finally:
        torch.autograd.grad, torch.autograd.backward = originals
    return calls


def measure(keys: list[str], *, last_bias: bool, rounds: int) -> dict[str, dict]:
    """Time the contestants in turns; return figures or a failure for each."""
    runs: dict[str, Run] = {}
    rows: dict[str, dict] = {}
    for key in keys:
        rows[key] = {"name": CONTESTANTS[key].name}
        run = Run(key, last_bias=last_bias)
        try:
            for _ in range(WARM_UP):
                run.draw()
                run.step()
        except RuntimeError as error:
            # What a user of that package would see.
            rows[key]["failure"] = str(error).splitlines()[0]
        else:
            runs[key] = run
    times: dict[str, list[float]] = {key: [] for key in runs}
    for index in track(range(rounds), description="rounds"):
        # Each round starts with another contestant, so that none always follows the same one.
        order = list(runs)
        for key in order[index % len(order) :] + order[: index % len(order)]:
            runs[key].draw()
            times[key].append(seconds(runs[key].step))
    for key, run in runs.items():
        rows[key] |= {
            "median_s": statistics.median(times[key]),
            "p20_s": sorted(times[key])[rounds // 5],
            "p80_s": sorted(times[key])[rounds - 1 - rounds // 5],
            "backward_calls": backward_calls(run),
            "times_s": times[key],
        }
        if "adam" in runs:
            pairs = zip(times[key], times["adam"], strict=True)
            rows[key]["relative_to_adam"] = statistics.median(a / b for a, b in pairs)
    return rows


def measure_memory(key: str, *, last_bias: bool) -> float | None:
    """Return the peak resident memory of a process that takes a few steps, in GB."""
    command = [sys.executable, "-m", "benchmarks.step_cost", "--memory-of", key]
    if not last_bias:
        command.append("--no-last-bias")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def print_peak_memory(key: str, *, last_bias: bool) -> None:
    """Take a few steps and print the peak resident memory of this process in GB."""
    run = Run(key, last_bias=last_bias)
    for _ in range(4):
        run.draw()
        run.step()
    # Not `getrusage`, whose maximum goes back to before this program was started.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(int(peak.group(1)) * 1024 / 1e9)


def table(title: str, rows: dict[str, dict]) -> Table:
    """Return the figures as a table."""
    result = Table("optimizer", "ms", "x Adam", "backward calls", "peak GB", title=title)
    for row in rows.values():
        if "failure" in row:
            result.add_row(row["name"], f"fails: {row['failure']}", "", "", "")
            continue
        memory = row.get("peak_memory_gb")
        result.add_row(
            row["name"],
            f"{1e3 * row['median_s']:.0f} ({1e3 * row['p20_s']:.0f}-{1e3 * row['p80_s']:.0f})",
            f"{row['relative_to_adam']:.2f}",
            str(row["backward_calls"]),
            "" if memory is None else f"{memory:.2f}",
        )
    return result


def plot(sections: dict[str, dict[str, dict]], path: Path) -> None:
    """Draw time relative to Adam and peak memory, one bar a contestant."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    heights = [len(rows) for rows in sections.values()]
    figure, axes = plt.subplots(
        len(sections),
        2,
        figsize=(10, 0.6 * sum(heights) + 1.6),
        layout="constrained",
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
    )
    for (title, rows), (left, right) in zip(sections.items(), axes, strict=True):
        names = [row["name"] for row in rows.values()]
        colors = ["C1" if "compopt" in name else "0.6" for name in names]
        for axis, key in ((left, "relative_to_adam"), (right, "peak_memory_gb")):
            values = [row.get(key) or 0.0 for row in rows.values()]
            bars = axis.barh(names, values, color=colors)
            labels = [f"{value:.2f}" if value else "fails" for value in values]
            axis.bar_label(bars, labels, padding=3)
            axis.margins(x=0.15)
            axis.invert_yaxis()
            axis.spines[["top", "right"]].set_visible(False)
        left.set_title(title, loc="left")
        left.set_xlabel("time of a step, Adam = 1")
        right.set_xlabel("peak memory of the process, GB")
        right.set_yticklabels([])
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write a data file and a plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="timed steps of each contestant")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--memory-of", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--no-last-bias", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.memory_of:
        print_peak_memory(args.memory_of, last_bias=not args.no_last_bias)
        return
    sections = {}
    for title, last_bias in (("published networks", True), ("critic without last bias", False)):
        keys = [key for key in CONTESTANTS if last_bias or key != "compopt-tight"]
        rows = measure(keys, last_bias=last_bias, rounds=args.rounds)
        for key in track(keys, description="memory"):
            if "failure" not in rows[key]:
                rows[key]["peak_memory_gb"] = measure_memory(key, last_bias=last_bias)
        sections[title] = rows
        Console().print(table(title, rows))
    data = {
        "workload": {
            "generator_parameters": num_parameters(SmallGenerator()),
            "critic_parameters": num_parameters(SmallCritic()),
            "batch_size": BATCH_SIZE,
            "rounds": args.rounds,
            "loss": "Wasserstein, random images",
        },
        "conditions": conditions(("CGDs", "torch-cgd")),
        "sections": sections,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "step_cost.json").write_text(json.dumps(data, indent=1) + "\n")
    plot(sections, args.out / "step_cost.png")
    print(f"Written to {args.out}: step_cost.json, step_cost.png")


if __name__ == "__main__":
    main()
