"""Run the interpreted tests of the kernels with other releases of Triton.

``python .ci/try_triton.py 3.2.0 3.4.0`` installs each into a folder of its own, beside the torch
that is there, and prints the outcome. It needs the package index. ``--dry-run`` says what would be
installed and run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = (
    "test_strict_interpreter.py",
    "test_cg_kernels.py",
    "test_list_kernels.py",
    "test_adaptive_kernels.py",
    "test_large_offsets.py",
    "test_steps.py",
    "test_norms.py",
    "test_layer_norm.py",
    "test_activations.py",
    "test_linear.py",
    "test_penalties.py",
    "test_layer_kernels.py",
    "test_registry.py",
    "test_dispatch.py",
    "test_saved_tensors.py",
)
# With a newer NumPy the loops of interpreted kernels fail on these.
NEEDS_OLD_NUMPY = (3, 6)


def outcome(version: str, *, dry_run: bool) -> str:
    """Return the last line of the test run with ``version``, or what would be run."""
    old = tuple(map(int, version.split(".")[:2])) <= NEEDS_OLD_NUMPY
    packages = [f"triton=={version}", *(["numpy<2.4"] if old else [])]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    # NumPy's warning about what it refuses from 2.4 on.
    quiet = ("-W", "ignore:Conversion of an array:DeprecationWarning")
    tests = [sys.executable, "-m", "pytest", "-q", *quiet, *(f"tests/kernels/{t}" for t in TESTS)]
    if dry_run:
        return f"{' '.join(packages)}; {' '.join(tests[1:])}"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*install, folder, *packages], check=True)
        paths = [folder, str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        done = subprocess.run(
            tests,
            cwd=ROOT,
            env={**environment, "TRITON_INTERPRET": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="+", help="releases, such as 3.2.0")
    parser.add_argument("--dry-run", action="store_true", help="install and run nothing")
    args = parser.parse_args()
    for version in args.versions:
        print(version, outcome(version, dry_run=args.dry_run), flush=True)
