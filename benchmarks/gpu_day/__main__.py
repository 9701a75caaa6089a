"""A day on a lent GPU, in stages of at most nine minutes.

    python -m benchmarks.gpu_day A                   tests, kernels, cost and phases of a step
    python -m benchmarks.gpu_day B --data FOLDER     steps a second, CIFAR-10 of the first seed
    python -m benchmarks.gpu_day C --data FOLDER     further seeds, and their judgement

Outcomes are written to ``stage_A.json`` and so on after each task, with what it measured. The same
command goes on where the last one stopped: tasks that are done are not repeated, those that failed
or ran out of time are. ``--dry-run`` goes through a stage on the CPU, tiny: its figures mean
nothing.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu_day.images import write_images
from benchmarks.gpu_day.running import Record, run_stage
from benchmarks.gpu_day.stages import DRY_LIMIT, LIMIT, STAGES, Day, tasks_of
from benchmarks.harness import conditions


def main(argv: Sequence[str] | None = None) -> int:
    """Run a stage; return 0 if all of it is done."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_day",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, default=Path("out/gpu_day"), help="of the outcomes")
    parser.add_argument(
        "--work", type=Path, default=Path("out/gpu_day_work"), help="of everything else"
    )
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--protocol", default="contrasts", help="of the CIFAR-10 runs")
    parser.add_argument("--steps", type=int, default=2000, help="of each CIFAR-10 run")
    parser.add_argument(
        "--seconds", type=float, help=f"of the stage, at most; {LIMIT:.0f} if not given"
    )
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, tiny")
    args = parser.parse_args(argv)
    if not args.dry_run and not torch.cuda.is_available():
        parser.error("A stage needs a GPU, and torch finds none. Use `--dry-run`.")
    # As an exception, on which a task is ended with what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    work, data = args.work.resolve(), args.data
    if args.dry_run and data is None:
        data = write_images(work / "images")
    day = Day(
        out=args.out.resolve(),
        work=work,
        data=None if data is None else data.resolve(),
        protocol=args.protocol,
        steps=args.steps,
        dry=args.dry_run,
    )
    name = f"{'dry_' if day.dry else ''}stage_{args.stage}"
    record = Record(day.out / f"{name}.json", conditions(("triton", "CGDs")))
    seconds = args.seconds or (6 * DRY_LIMIT if day.dry else LIMIT)
    logs = work / f"{name}_logs"
    done = run_stage(tasks_of(args.stage, day), record, seconds, logs, _say)
    _say(f"{'All' if done else 'Not all'} of stage {args.stage} is done: {day.out / name}.json")
    return int(not done)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
