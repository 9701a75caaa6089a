"""Each command of the pages is executed in its quickest form; asked for help, none runs."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from documented import ROOT, commands_of, documented
from forked import run_forked
from quick_forms import ELSEWHERE, MAKE, QUICK, SLOW

from benchmarks.cifar10 import __main__ as cifar10
from benchmarks.cifar10 import costs
from benchmarks.gpu_day.images import write_images

RUN = """
import contextlib, io, json, os, runpy, sys, traceback
ended, output = [], sys.argv[2]
for name, *arguments in json.loads(sys.argv[1]):
    sys.argv = [name, *arguments]
    printed, status = io.StringIO(), 0
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
    ended.append((status, printed.getvalue(), list(sys.modules)))
with open(output, "w") as file:
    json.dump(ended, file)
"""
# Seconds of import each, which a question for help need not wait for.
SLOW_IMPORTS = {"sklearn", "torch._dynamo", "torch._inductor", "lightning", "accelerate", "jax"}
# Status and words of what cannot run on every machine.
WITHOUT = {
    "python -m benchmarks.jax_cgd": (2, 'pip install -e ".[jax]"'),
    "python -m benchmarks.kernels --device cuda": (1, "There is no CUDA device here"),
}


def programs() -> list[str]:
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


def run(
    commands: list[list[str]], folder: Path, *, forked: bool = False
) -> list[tuple[int | str, str, list[str]]]:
    """Run programs one after the other in one process, as each import of torch takes seconds.

    Args:
        commands: names of programs and their arguments.
        folder: for what they print.
        forked: whether the process has imported torch before.

    Returns:
        Of each its status, what it printed, and the modules that are loaded after it.
    """
    before = stored_files()
    printed, ended = folder / "printed", folder / "ended"
    options = ["-W", "ignore", "-c", RUN, json.dumps(commands), str(ended)]
    if forked:
        code = run_forked(*options, output=printed)
    else:
        with printed.open("w") as file:
            command = [sys.executable, *options]
            code = subprocess.run(
                command, cwd=ROOT, stdout=file, stderr=file, timeout=600, check=False
            ).returncode
    assert code == 0, printed.read_text()
    assert stored_files() == before
    return [tuple(end) for end in json.loads(ended.read_text())]


def stored_files() -> dict[Path, int]:
    """Return what is at the top, and when results were written."""
    # Pytest makes its cache at any time.
    top = [file for file in ROOT.iterdir() if file.name != ".pytest_cache"]
    files = [*top, *(ROOT / "benchmarks" / "results").rglob("*.*")]
    return {file: file.stat().st_mtime_ns if file.is_file() else 0 for file in files}


def words_of(command: str, quick: str, folder: Path) -> list[str]:
    """Return program and arguments of a quick form."""
    text = quick.format(command=command, out=folder / "out", data=folder / "images")
    words = shlex.split(text)
    return words[words.index("-m") + 1 :] if "-m" in words[:2] else words[1:]


@pytest.fixture(scope="module")
def helps(folder) -> dict[str, tuple[int | str, str, list[str]]]:
    """Return how each program ended that was asked for its help."""
    asked = [[name, "--help"] for name in programs()]
    return dict(zip(programs(), run(asked, folder), strict=True))


def test_help_runs_nothing(helps):
    for name, (status, printed, modules) in helps.items():
        assert status == 0, (name, printed)
        assert printed.startswith("usage: "), name
        assert len(printed.splitlines()) > 3, name
        assert not SLOW_IMPORTS & set(modules), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with few made-up images, for what is written."""
    folder = tmp_path_factory.mktemp("commands")
    write_images(folder / "images")
    return folder


@pytest.fixture(scope="module")
def quick(folder) -> dict[str, tuple[int | str, str, list[str]]]:
    """Return how each quick form ended."""
    asked = [words_of(*form, folder) for form in QUICK.items()]
    return dict(zip(QUICK, run(asked, folder, forked=True), strict=True))


def test_quick_forms_run(quick):
    for command, (status, printed, _) in quick.items():
        if status and command in WITHOUT:
            expected, words = WITHOUT[command]
            assert (status, words in printed) == (expected, True), (command, printed)
        else:
            assert status == 0, (command, printed)
            assert len(printed.split()) > 1, command


@pytest.mark.slow
@pytest.mark.parametrize("command", SLOW)
def test_it_runs_slowly(folder, command):
    words = words_of(command, SLOW[command], folder)
    ((status, printed, _),) = run([words], folder)
    assert status == 0, printed


def test_every_command_has_a_quick_form_with_its_options():
    forms = {**QUICK, **SLOW}
    commands = [command for command in documented() if not command.startswith("make ")]
    assert len(commands) > 50
    for command in commands:
        assert (command in forms) + (command in ELSEWHERE) == 1, command
        if command in forms:
            options = re.findall(r"(?<!\S)--[\w-]+", command)
            words = shlex.split(forms[command].format(command=command, out="", data=""))
            assert set(options) <= set(words), command
        else:
            path, text = ELSEWHERE[command]
            assert text in (ROOT / path).read_text(), command


def test_no_quick_form_is_left_over():
    assert {*QUICK, *SLOW, *ELSEWHERE} <= set(documented())


def test_commands_are_found():
    page = """Run `make test` or `python -m benchmarks.toy --quick`; see `tests/test_docs.py`.
```
export A=1
B=2 pytest -m slow  # a comment
exec python examples/wgan_gp.py
```
````{figure} x.png
```python
make(1)
```
````
"""
    found = ["pytest -m slow", "examples/wgan_gp.py", "make test"]
    assert commands_of(page) == [*found, "python -m benchmarks.toy --quick"]
    assert {"make demo", "make test", "pip install .", "examples/digits_gan.py"} < set(documented())


def test_costs_are_measured_by_the_command(tmp_path, monkeypatch, capsys):
    stored = []
    monkeypatch.setattr(costs, "measure", lambda cells, rounds: {})
    monkeypatch.setattr(costs, "store", lambda *given: stored.append(given))
    assert cifar10.main(["costs", "contrasts", "--rounds", "1"]) == 0
    assert stored == [({}, 1)]


def recipe(target: str) -> list[str]:
    """Return what a target runs once its environment is there."""
    # Within another make it would say which folder it enters.
    quiet = ["make", "-n", "--no-print-directory"]
    command = [*quiet, "-o", ".venv/.dev", "-o", ".venv/.demo", "-o", ".venv/.docs", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.replace("\\\n", "").splitlines()
    lines = [line.replace(".venv/bin/", "") for line in lines]
    return [re.sub(r"^python (?=examples|\.ci)", "", line) for line in lines]


def targets() -> set[str]:
    found = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    return set(found[1].split())


def test_what_targets_run_is_run_by_others():
    known = {" ".join(c.split()[:4]) for c in {*QUICK, *SLOW, *ELSEWHERE}}
    for target in sorted(targets() - {"help"}):
        lines = recipe(target)
        assert lines, target
        for line in lines:
            if any(line.startswith(c) for c in known):
                continue
            (path, text), *_ = [where for start, where in MAKE.items() if line.startswith(start)]
            assert text in (ROOT / path).read_text(), line


def test_targets_of_make_exist_and_help_lists_them():
    asked = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^make ([\w-]+)  ", asked, re.M)
    assert sorted(listed) == sorted(targets() - {"help"})
    named = {command.split()[1] for command in documented() if command.startswith("make ")}
    assert {"demo", "test", "docs"} <= named <= targets()


def test_ci_runs_targets():
    subprocess.run(["bash", "-n", ".ci/run"], cwd=ROOT, check=True)
    made = re.findall(r"^make (.*)$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert {"lint", "typecheck", "wheel", "docs", "test"} == set(made)
