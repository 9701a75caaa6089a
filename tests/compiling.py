"""Programs in a process that compiles kernels. This one interprets them; no process can do both."""

import contextlib
import inspect
import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_compiling(*command: str | Path) -> Any:
    """Run Python with a command line in a process that compiles; return the JSON it prints last.

    Args:
        command: such as a file that holds kernels, and its arguments. ``tests`` and the root are
            on the path.
    """
    source = pytest.importorskip("triton.compiler").ASTSource
    if "constexprs" not in inspect.signature(source).parameters:
        pytest.skip("Tools that compile without a device follow the interface of newer Triton.")
    environment = {name: os.environ[name] for name in os.environ if name != "TRITON_INTERPRET"}
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_each_compiling(*programs: Path) -> dict[str, Any]:
    """Run programs one after the other in one process that compiles.

    Returns:
        What each printed last, by the name of its file.
    """
    found = run_compiling(__file__, *programs)
    assert isinstance(found, dict)
    return found


def _run_each(programs: list[str]) -> None:
    found = {}
    for program in programs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            runpy.run_path(program, run_name="__main__")
        found[Path(program).stem] = json.loads(printed.getvalue().strip().splitlines()[-1])
    print(json.dumps(found))


if __name__ == "__main__":
    _run_each(sys.argv[1:])
