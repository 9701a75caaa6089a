"""The micro-benchmarks run: once each, at their smallest size, without a clock."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_micro_benchmarks_run_at_their_smallest_size() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "benchmarks/micro.py", "--benchmark-disable"]
    small = "4e4 or (10000 and not 10000000 and not 1000000) or numbers"
    done = subprocess.run(
        [*command, "-k", small], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "13 passed" in done.stdout
