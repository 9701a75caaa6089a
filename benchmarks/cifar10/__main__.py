"""Implicit against explicit regularization on CIFAR-10.

    python -m benchmarks.cifar10 run smoke --out out/smoke     all cells, side by side; resumes
    python -m benchmarks.cifar10 status out/smoke              how they stand
    python -m benchmarks.cifar10 report out/smoke              tables and pictures

Several machines can share a sweep: `init` creates it, and each machine runs `work`.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.cifar10.errors import BenchmarkError, Interrupted
from benchmarks.cifar10.monitor import check_workers
from benchmarks.cifar10.sweep import HELD_ELSEWHERE, Sweep, stop_on_signals


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    args = _parser().parse_args(argv)
    try:
        return int(args.command(args))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 128 + signal.SIGTERM


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cifar10",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)

    def add(name: str, function: object, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
        return command

    for name, function, text in (
        ("run", _run, "Make or resume a sweep and run its cells."),
        ("init", _init, "Make a sweep without running it."),
    ):
        command = add(name, function, text)
        command.add_argument("protocol", help="smoke, cpu, paper, or a file")
        command.add_argument("--out", type=Path, required=True, help="folder of the sweep")
        command.add_argument(
            "-o",
            "--override",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="change the protocol, such as run.steps=100",
        )
        if name == "run":
            _add_running(command)

    command = add("work", _work, "Run what is left of a sweep.")
    command.add_argument("sweep", type=Path)
    _add_running(command)

    command = add("cell", _cell, "Run one cell in this process (or, under torchrun, in several).")
    command.add_argument("sweep", type=Path)
    command.add_argument("name")
    command.add_argument("--data", type=Path)

    command = add("status", _status, "Show how the cells of a sweep stand.")
    command.add_argument("sweep", type=Path)

    text = "Write the report of a sweep, or the documentation's page from all committed results."
    command = add("report", _report, text)
    command.add_argument("sweep", type=Path, nargs="?", help="or a folder of stored results")
    command.add_argument("--out", type=Path, help="folder of the report; SWEEP/report if not given")

    command = add("costs", _costs, "Measure what a step of each cell of a protocol costs.")
    command.add_argument("protocol", help="smoke, cpu, paper, or a file")
    command.add_argument("--rounds", type=int, default=9, help="of 16 steps of each kind")

    command = add("store", _store, "Write small files of the results of finished cells.")
    command.add_argument("sweep", type=Path)
    command.add_argument("--out", type=Path, required=True, help="folder of the files")

    text = "Write the protocol of the final runs from the stored trials of a search."
    command = add("choose", _choose, text)
    command.add_argument("results", type=Path, help="folder of stored results")
    command.add_argument("--protocol", default="tuning", help="of the search")
    command.add_argument("--out", type=Path, required=True, help="the protocol's file")

    command = add("data", _data, "Find, download and check the images.")
    command.add_argument("--data", type=Path)
    return parser


def _add_running(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", type=Path, help="folder of the images")
    command.add_argument("--cell", action="append", help="only this cell; may be repeated")
    command.add_argument("--workers", type=int, default=2, help="cells that run at once")
    command.add_argument("--storage", help="Optuna's, such as a database server's address")


def _init(args: argparse.Namespace) -> int:
    from benchmarks.cifar10.protocol import load_protocol

    sweep = Sweep.create(args.out, load_protocol(args.protocol, args.override))
    print(f"{len(sweep.cells)} cells in {args.out}")
    return 0


def _run(args: argparse.Namespace) -> int:
    from benchmarks.cifar10.protocol import load_protocol

    check_workers(args.workers)
    return _work_on(args, Sweep.create(args.out, load_protocol(args.protocol, args.override)))


def _work(args: argparse.Namespace) -> int:
    check_workers(args.workers)
    return _work_on(args, Sweep(args.sweep))


def _work_on(args: argparse.Namespace, sweep: Sweep) -> int:
    from benchmarks.cifar10.data import load_images
    from benchmarks.cifar10.monitor import status_table, work

    # Load once before the workers start, so that there is one error or one download.
    load_images(args.data)
    console = Console()
    work(sweep, args.data, console, workers=args.workers, names=args.cell, storage=args.storage)
    console.print(status_table(sweep))
    return _exit_status(sweep, args.cell)


def _exit_status(sweep: Sweep, names: list[str] | None) -> int:
    states = [sweep.status(name)["state"] for name in names or sweep.cells]
    return int("failed" in states)


def _cell(args: argparse.Namespace) -> int:
    # Imported here so that the other commands start fast.
    from benchmarks.cifar10.cell import run_cell
    from benchmarks.cifar10.lock import HeldError

    # The cell also stops, after a checkpoint, if its worker was killed.
    parent, asked = os.getppid(), []
    with stop_on_signals(lambda: asked.append(True)):
        try:
            outcome = run_cell(
                Sweep(args.sweep),
                args.name,
                data=args.data,
                stop=lambda: bool(asked) or os.getppid() != parent,
            )
        except HeldError as error:
            print(error, file=sys.stderr)
            return HELD_ELSEWHERE
    print(f"{args.name}: {outcome}")
    return 0


def _status(args: argparse.Namespace) -> int:
    from benchmarks.cifar10.monitor import status_table

    sweep = Sweep(args.sweep)
    Console().print(status_table(sweep))
    return _exit_status(sweep, None)


def _report(args: argparse.Namespace) -> int:
    from benchmarks.cifar10.report import PAGE, write_committed, write_report

    if args.sweep is None:
        write_committed()
        print(f"Wrote {PAGE}")
    else:
        print(f"Wrote {write_report(args.sweep, args.out or args.sweep / 'report')}")
    return 0


def _costs(args: argparse.Namespace) -> int:
    from benchmarks.cifar10 import costs
    from benchmarks.cifar10.protocol import load_protocol

    if args.rounds < 1:
        raise BenchmarkError(f"`--rounds` must be 1 or more, got {args.rounds}.")
    # Without a budget, the protocol does not need the stored costs that are measured here.
    changes = ("run.budget=null", "run.evaluation.points=0", "run.evaluation.endpoint_metrics=[]")
    cells = load_protocol(args.protocol, list(changes)).cells()
    measured = costs.measure(cells, args.rounds)
    costs.store(measured, args.rounds)
    for key, cost in measured.items():
        print(f"{cost.step:6.2f} + {cost.product:5.2f} a product: {key}")
    return 0


def _store(args: argparse.Namespace) -> int:
    from benchmarks.cifar10.stored import store_results

    print(f"{store_results(Sweep(args.sweep), args.out)} cells in {args.out}")
    return 0


def _choose(args: argparse.Namespace) -> int:
    from benchmarks.cifar10.choose import write_choice
    from benchmarks.cifar10.protocol import load_protocol
    from benchmarks.cifar10.stored import load_results

    for line in write_choice(args.out, load_protocol(args.protocol), load_results(args.results)):
        print(line)
    return 0


def _data(args: argparse.Namespace) -> int:
    from benchmarks.cifar10.data import load_images

    for name, value in load_images(args.data).describe().items():
        print(f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
