"""Time of a step by phase: loss, gradients, products, vectors, set-up, update.

Run ``python -m benchmarks.profile --device cpu`` (or ``cuda``). Times are those of the ranges that
the package marks for ``torch.profiler``. The roofline time of a phase is the sum of its operations'
least times at the copy bandwidth and matrix-product rate that are measured on the device first;
fused or fewer operations could take less. A Chrome trace of each optimizer is written beside the
table and the plot: open it at ui.perfetto.dev.
"""

import gzip
import json
import statistics
from dataclasses import asdict
from pathlib import Path

import torch
from rich.progress import track
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks import step_cost
from benchmarks.contestants import CONTESTANTS
from benchmarks.harness import (
    RESULTS,
    arguments,
    clock,
    conditions,
    device_of,
    picture,
    show,
    write_result,
)
from benchmarks.phases import LOSS, Counting, Peak, Phase, Share, attribute, measured_peak
from benchmarks.workloads import WORKLOADS
from compopt._profiling import forced_ranges

STEP = "benchmark::step"
WARM_UP = 3
OPTIMIZERS = ["adam", "extra-adam", "compopt-one", "compopt", "compopt-tight"]
ON_DEVICE = ["compopt-torch"]
"""Also on a device: there the others' kernels are Triton's, where it is installed."""


class Run(step_cost.Run):
    """An optimizer with its own copy of the game, with ranges for the profiler."""

    def step(self) -> None:
        """Take one step."""
        with record_function(STEP):
            super().step()

    def _loss(self, share: float = 1.0) -> torch.Tensor:
        with record_function(LOSS):
            return super()._loss(share)


def measure(run: Run, device: torch.device, steps: int, peak: Peak, trace: Path) -> dict:
    """Profile a run, count its operations, and write its trace; return the figures."""
    seconds = clock(device)
    times = []
    for index in range(WARM_UP + steps):
        run.draw()
        taken = seconds(run.step)
        times += [taken] if index >= WARM_UP else []
    activities = [ProfilerActivity.CPU]
    activities += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=activities) as recorded:
        for _ in range(steps):
            run.draw()
            seconds(run.step)
    trace.parent.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(trace))
    shares = {phase: Share() for phase in Phase}
    with gzip.open(trace, "rt") as file:
        attribute(json.load(file)["traceEvents"], STEP, shares, steps)
    run.draw()
    with forced_ranges(), Counting(shares, peak):
        run.step()
    return {
        "step_ms": 1e3 * statistics.median(times),
        "phases": {phase.value: asdict(share) for phase, share in shares.items()},
    }


def time_key(rows: dict[str, dict]) -> str:
    """Return the key of the time that compares phases: the device's if there is one."""
    phases = [share for row in rows.values() for share in row["phases"].values()]
    return "device_ms" if any(share["device_ms"] for share in phases) else "host_ms"


def heads(key: str) -> list[str]:
    """Return the header of the table."""
    device = ["device ms", "launches"] if key == "device_ms" else []
    figures = ["GB moved", "GFLOP", "MB allocated", "of the roofline"]
    return ["phase", "host ms", *device, "share", "operations", *figures]


def cells(row: dict, key: str) -> list[list[str]]:
    """Return the table rows of one optimizer, without phases of zero time."""
    total = sum(share[key] for share in row["phases"].values())
    return [
        [
            phase,
            f"{share['host_ms']:.2f}",
            *(
                [f"{share['device_ms']:.2f}", f"{share['launches']:.0f}"]
                if key == "device_ms"
                else []
            ),
            f"{share[key] / total:.0%}",
            f"{share['operations']:.0f}",
            f"{share['gigabytes']:.3f}",
            f"{share['gigaflops']:.2f}",
            f"{share['allocated_mb']:.0f}",
            f"{share['roofline_ms'] / share[key]:.0%}",
        ]
        for phase, share in row["phases"].items()
        if share[key]
    ]


def draw(title: str, rows: dict[str, dict], key: str, path: Path) -> None:
    """Plot a stacked bar for each optimizer: time by phase, with the roofline time inside."""
    names = [row["name"] for row in rows.values()]
    before = [0.0] * len(rows)
    with picture(path, (9, 0.7 * len(rows) + 2)) as (figure, [[axis]]):
        for index, phase in enumerate(Phase):
            shares = [row["phases"][phase.value] for row in rows.values()]
            times = [share[key] for share in shares]
            axis.barh(names, times, left=before, color=f"C{index}", label=phase.value)
            roofline = [min(share["roofline_ms"], share[key]) for share in shares]
            axis.barh(names, roofline, 0.25, left=before, color="black", alpha=0.35)
            before = [a + b for a, b in zip(before, times, strict=True)]
        axis.invert_yaxis()
        axis.set_xlabel("ms a step, of the device" if key == "device_ms" else "ms a step")
        axis.set_title(f"{title}; dark: roofline time of the same operations", loc="left")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4)


def main(argv: list[str] | None = None) -> dict[str, dict]:
    """Profile, print, and write a data file, a plot and traces; return the figures."""
    parser = arguments(__doc__, out=RESULTS / "profile", device=True)
    parser.add_argument(
        "--optimizer", nargs="+", choices=CONTESTANTS, metavar="NAME", help=", ".join(CONTESTANTS),
    )  # fmt: skip
    parser.add_argument("--workload", choices=WORKLOADS, default="dcgan")
    parser.add_argument("--batch-size", type=int, help="default: the workload's")
    parser.add_argument("--steps", type=int, default=5, help="profiled steps")
    parser.add_argument(
        "--traces", type=Path, default=Path("out/profile"), help="folder of Chrome traces"
    )
    args = parser.parse_args(argv)
    device = device_of(parser, args)
    if args.steps < 1:
        parser.error(f"`--steps` must be 1 or more, got {args.steps}.")
    workload = WORKLOADS[args.workload]
    batch_size = args.batch_size or workload.batch_size
    peak = measured_peak(device, clock(device))
    stem = f"{args.workload}_{device.type}"
    rows = {}
    default = OPTIMIZERS + (ON_DEVICE if device.type == "cuda" else [])
    for name in track(args.optimizer or default, description="optimizers"):
        run = Run(name, args.workload, device, batch_size)
        trace = args.traces / f"{stem}_{name}.json.gz"
        rows[name] = {
            "name": CONTESTANTS[name].name,
            **measure(run, device, args.steps, peak, trace),
        }
    key = time_key(rows)
    for row in rows.values():
        title = f"{row['name']}: {row['step_ms']:.1f} ms a step without the profiler"
        show(title, heads(key), cells(row, key))
    data = {
        "workload": {"name": workload.name, "batch_size": batch_size, "steps": args.steps},
        "conditions": conditions(),
        "peak": asdict(peak),
        "rows": rows,
    }
    write_result(args.out / f"{stem}.json", data)
    draw(f"{workload.name}, batch {batch_size}", rows, key, args.out / f"{stem}.png")
    print(f"Written to {args.out}: {stem}.json, {stem}.png; Chrome traces to {args.traces}")
    return rows


if __name__ == "__main__":
    main()
