"""The claims of the papers, one by one.

Run ``python -m benchmarks.claims`` to run what has not been run yet, each run at most a minute or
two of one core, and to write ``docs/claims.md`` from what is stored. ``--page`` only writes it.
"""

from collections.abc import Sequence

from rich.progress import track

from benchmarks.claims.experiments import EXPERIMENTS
from benchmarks.claims.page import PAGE, page
from benchmarks.harness import RESULTS, arguments, read_result, write_result


def main(argv: Sequence[str] | None = None) -> None:
    """Run, store each result as soon as it is there, and write the page."""
    parser = arguments(__doc__, out=RESULTS / "claims")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--page", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    for name in () if args.page else args.only:
        file = args.out / f"{name}.json"
        runs = read_result(file, {"runs": {}})["runs"]
        for key, run in track(list(EXPERIMENTS[name]()), description=name):
            if key not in runs:
                runs[key] = run()
                write_result(file, {"runs": runs}, indent=None)
    PAGE.write_text(page())
    print(f"Wrote {PAGE}")


if __name__ == "__main__":
    main()
