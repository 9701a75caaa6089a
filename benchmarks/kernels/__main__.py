"""Benchmark of the kernels: ``python -m benchmarks.kernels``.

``--static`` compiles every kernel for every target, without a device. ``--device cuda`` runs the
tests of the kernels, then times them; ``--device cpu`` times forms of the plain operations.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.kernels.timing import on_cpu, on_device, plain_counts

RESULTS = Path(__file__).resolve().parent.parent / "results"
LAUNCHES = {"an iteration of conjugate gradients": 4, "the set-up of both players": 2}
"""Of the Triton forms, as ``tests/kernels/test_launches.py`` counts them."""


def _tests_pass() -> bool:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    return all(
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "tests/kernels", *options],
            env={**environment, "TRITON_INTERPRET": interpret},
            check=False,
        ).returncode
        == 0
        for interpret, options in (("1", ()), ("0", ("-m", "gpu")))
    )


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--size", type=int, default=1 << 23, help="elements of the vectors")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if not arguments.static and arguments.device is None:
        parser.error("choose --static, --device cuda or --device cpu")
    if arguments.static:
        # Interpreted kernels cannot be compiled.
        os.environ.pop("TRITON_INTERPRET", None)
        from benchmarks.kernels.static import write

        print(write(arguments.out))
    if arguments.device is None:
        return 0
    if arguments.device == "cuda":
        if not torch.cuda.is_available():
            print("There is no CUDA device here, so nothing was timed. Try --static.")
            return 1
        if not _tests_pass():
            print("A test of the kernels fails, so nothing was timed.")
            return 1
        result = on_device(arguments.size)
    else:
        result = on_cpu(arguments.size)
    for what, count in plain_counts().items():
        print(f"{what}: {LAUNCHES[what]} launches with Triton, {count} operations with torch")
    result["operations"] = plain_counts()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"kernels_{arguments.device}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
