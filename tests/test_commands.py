"""Every command says what it does when asked, and runs nothing; what pages say to run exists."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "kernels/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*/README.md")),
]
# Up to what ends a command in a text: a mark of code, a comment, the end of the line.
COMMAND = re.compile(r"(?:-m (benchmarks[\w.]*)|((?:examples|\.ci)/\w+\.py))([^`#|\n]*)")
MAKE = re.compile(r"(?:`|^|\n)make ([a-z][\w-]*)")

ASK = """
import contextlib, io, json, os, runpy, sys, traceback
answers = []
for name, *arguments in json.loads(sys.argv[1]):
    sys.argv = [name, *arguments, "--help"]
    printed, status = io.StringIO(), "returned"
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            if name.endswith(".py"):
                sys.path.insert(0, os.path.dirname(os.path.abspath(name)))
                runpy.run_path(name, run_name="__main__")
            else:
                runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code or 0
        except Exception:
            traceback.print_exc()
            status = "failed"
    answers.append((status, printed.getvalue()))
print(json.dumps(answers))
"""


def commands() -> list[str]:
    """Return modules, by name, and scripts, by path, that can be run."""
    found = []
    for folder in ("benchmarks", "compopt", "examples", ".ci"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if path.name == "__main__.py":
                found.append(".".join(relative.parent.parts))
            elif re.search(r"^if __name__ == .__main__.:", path.read_text(), re.M):
                script = folder in ("examples", ".ci")
                module = ".".join(relative.with_suffix("").parts)
                found.append(relative.as_posix() if script else module)
    return found


def documented() -> list[list[str]]:
    """Return the commands that pages name, each with its arguments."""
    found = []
    for page in PAGES:
        for module, script, rest in COMMAND.findall(page.read_text()):
            # In a table or a sentence words follow that are no arguments.
            arguments = [] if rest.startswith((",", ".", ":", ";", ")")) else rest.split("  ")[0]
            found.append([module or script, *(arguments.split() if arguments else [])])
    return [list(command) for command in dict.fromkeys(map(tuple, found))]


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[tuple[str, ...], tuple[object, str]]:
    """Return how each command ended that was asked for its help, and what it printed."""
    asked = [*([name] for name in commands()), *documented()]
    before = set(ROOT.iterdir())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, json.dumps(asked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(ROOT.iterdir()) == before
    ended = json.loads(done.stdout)
    return {tuple(command): tuple(end) for command, end in zip(asked, ended, strict=True)}


@pytest.mark.parametrize("name", commands())
def test_help_runs_nothing(answers, name):
    status, printed = answers[name,]
    assert status == 0, printed
    assert printed.startswith("usage: ")
    assert len(printed.splitlines()) > 3


def test_documented_commands_exist_with_their_options(answers):
    for command in documented():
        status, printed = answers[tuple(command)]
        assert status == 0, (command, printed)
        options = set(re.findall(r"--[\w-]+", " ".join(command)))
        assert options <= set(re.findall(r"--[\w-]+", printed)), command


def test_commands_are_found():
    assert {"benchmarks.toy", "benchmarks.soak", "examples/digits_gan.py"} < set(commands())
    assert ["benchmarks.kernels", "--static"] in documented()


def test_targets_of_make_exist_and_help_lists_them():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())
    asked = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^make ([\w-]+)  ", asked, re.M)
    assert sorted(listed) == sorted(targets - {"help"})
    named = {name for page in PAGES for name in MAKE.findall(page.read_text())}
    assert {"demo", "test", "docs"} <= named <= targets
