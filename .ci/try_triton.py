"""Run the interpreted tests of the kernels with other releases of Triton.

``python .ci/try_triton.py 3.2.0 3.4.0`` installs each into a folder of its own, beside the torch
that is there, and prints the outcome. It needs the package index.
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


def _install(folder: str, *packages: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*command, *packages], check=True)


def outcome(version: str) -> str:
    """Return the last line of the test run with ``version``."""
    with tempfile.TemporaryDirectory() as folder:
        old = tuple(map(int, version.split(".")[:2])) <= NEEDS_OLD_NUMPY
        _install(folder, f"triton=={version}", *(["numpy<2.4"] if old else []))
        paths = [folder, str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        # NumPy's warning about what it refuses from 2.4 on.
        quiet = ("-W", "ignore:Conversion of an array:DeprecationWarning")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *quiet, *(f"tests/kernels/{t}" for t in TESTS)],
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
    for version in parser.parse_args().versions:
        print(version, outcome(version), flush=True)
