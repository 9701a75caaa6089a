"""Plants faults in a copy of the package, one at a time, and says which ones the tests miss.

    python tests/plant_faults.py                 all of them
    python tests/plant_faults.py clipping hooks  those whose names hold one of these words

A suite that is made smaller must still catch them all. Each fault is tried on the tests that are
there for its kind, which stop at the first failure.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from call_faults import CALL_FAULTS
from compiled_faults import COMPILED_FAULTS
from faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("compopt", "kernels", "tests", "benchmarks", "examples", "docs", "pyproject.toml")


def occurrences(fault: Fault) -> int:
    """Return how often the text that a fault replaces is in its file."""
    return (ROOT / fault.file).read_text().count(fault.old)


def is_caught(fault: Fault, copy: Path) -> bool:
    """Return whether the tests notice a fault.

    Args:
        fault: to be planted, and taken out again.
        copy: of the repository.
    """
    file = copy / fault.file
    before = file.read_text()
    file.write_text(before.replace(fault.old, fault.new))
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "not slow"]
        result = subprocess.run(
            [*command, "-p", "no:cacheprovider", *fault.tests],
            cwd=copy,
            env={**_environment(), "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        file.write_text(before)
    # 1 is that of failed tests; 2 and more are mistakes of the command.
    if result.returncode > 1:
        raise RuntimeError(result.stdout[-3000:] + result.stderr[-1000:])
    return result.returncode == 1


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def main(words: list[str]) -> int:
    """Plant the faults; return how many were missed."""
    chosen = [
        f
        for f in (*FAULTS, *CALL_FAULTS, *COMPILED_FAULTS)
        if not words or any(word in f.name for word in words)
    ]
    if not chosen:
        sys.exit(f"No fault's name holds one of {words}.")
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, symlinks=True)
            else:
                shutil.copy(source, copy / name)
        for fault in chosen:
            caught = is_caught(fault, copy)
            print(f"{'caught' if caught else 'MISSED'}: {fault.name}", flush=True)
            missed += [] if caught else [fault]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} caught")
    return len(missed)


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
