"""A walk through a step finds the files that the documentation names, in that order."""

import re
from pathlib import Path

import pytest

from benchmarks.walk import GAMES, main, walk

ROOT = Path(__file__).resolve().parent.parent
# Sets up a process group, which is left to a process of its own.
ALONE = [name for name in GAMES if name != "a process group"]


@pytest.mark.parametrize("name", ALONE)
def test_a_step_goes_through_the_files_of_the_picture(name):
    page = (ROOT / "docs" / "methods.md").read_text()
    sentence = page.split("The code has the same order: ")[1].split(";")[0]
    named = [
        f"compopt/{part.removeprefix('compopt/')}" for part in re.findall(r"`(.*?)`", sentence)
    ]
    assert len(named) > 4
    found = list(walk(name).files)
    entered = [next(i for i, file in enumerate(found) if file.startswith(n)) for n in named]
    assert entered == sorted(entered), [found[i] for i in entered]


def test_the_table_and_the_files_are_printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("benchmarks.walk.GAMES", {name: GAMES[name] for name in ALONE})
    main(["--files"])
    printed = capsys.readouterr().out
    for name in ALONE:
        assert re.search(rf"│ {name} +│ \d+ ", printed)
        assert f"{name}: compopt/" in printed
