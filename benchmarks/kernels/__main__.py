"""Benchmark of the kernels: ``python -m benchmarks.kernels``.

``--static`` compiles every kernel for every target, without a device. ``--device cuda`` times the
kernels whose results agree with their plain forms there; ``--device cpu`` times forms of the plain
operations.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from benchmarks.kernels.timing import on_cpu, on_device, plain_counts

RESULTS = Path(__file__).resolve().parent.parent / "results"
LAUNCHES = {"an iteration of conjugate gradients": 4, "the set-up of both players": 2}
"""Of the Triton forms, as ``tests/kernels/test_launches.py`` counts them."""


def main() -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--static", action="store_true", help="compile, without a device")
    parser.add_argument(
        "--only", nargs="+", metavar="WORD", help="with --static: print those with such a name"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), help="time on it")
    parser.add_argument(
        "--size", type=int, nargs="+", default=[1 << 23], help="elements of the vectors"
    )
    parser.add_argument("--rounds", type=int, default=15, help="of --device cpu")
    parser.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        help="time torch.compile's forms too; by default on the CPU alone",
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not arguments.static and arguments.device is None:
        parser.error("choose --static, --device cuda or --device cpu")
    if arguments.static:
        # Interpreted kernels cannot be compiled.
        os.environ.pop("TRITON_INTERPRET", None)
        from benchmarks.kernels.static import as_markdown, compiled_table, write

        words = arguments.only
        print(as_markdown(compiled_table(words)) if words else write(arguments.out))
    if arguments.device is None:
        return 0
    if arguments.device == "cuda":
        if not torch.cuda.is_available():
            print("There is no CUDA device here, so nothing was timed. Try --static.")
            return 1
        result = on_device(arguments.size, compiled=bool(arguments.compiled))
    else:
        compiled = arguments.compiled is not False
        result = on_cpu(arguments.size[0], arguments.rounds, compiled=compiled)
    for what, count in plain_counts().items():
        print(f"{what}: {LAUNCHES[what]} launches with Triton, {count} operations with torch")
    result["operations"] = plain_counts()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"kernels_{arguments.device}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    failures = [row["name"] for row in result.get("kernels", ()) if "failure" in row]
    if failures:
        print(f"Not timed, as they are wrong here: {', '.join(failures)}.")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
