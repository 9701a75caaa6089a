"""The tutorial can be opened in Colab, with an address of the repository and without one."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

from docs.colab import repository, sentence

ROOT = Path(__file__).resolve().parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text()
ADDRESS = "https://github.com/somebody/compopt"
WITH_ADDRESS = PROJECT.replace("[project.urls]", f'[project.urls]\nRepository = "{ADDRESS}"')
CELL = "".join(json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())["cells"][1]["source"])


@pytest.fixture
def installed(monkeypatch, tmp_path) -> list[str]:
    """Return what the first cell installs, where compopt is missing."""
    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: found.append(command[-1]))
    return found


def test_the_first_cell_installs_a_wheel(installed, tmp_path):
    with pytest.raises(FileNotFoundError, match="Upload a wheel"):
        exec(CELL.replace(f'"{repository(PROJECT)}"', '""'), {})
    (tmp_path / "compopt-0.1.0-py3-none-any.whl").touch()
    exec(CELL, {})
    assert installed == ["compopt-0.1.0-py3-none-any.whl"]


def test_the_first_cell_installs_from_the_repository(installed):
    exec(re.sub(r'REPOSITORY = ".*"', f'REPOSITORY = "{ADDRESS}"', CELL), {})
    assert installed == [f"git+{ADDRESS}"]


def test_the_first_cell_does_nothing_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *given, **options: pytest.fail("installed"))
    exec(CELL, {})


def test_one_address_is_named_everywhere():
    assert f'REPOSITORY = "{repository(PROJECT)}"' in CELL
    cited = re.search(r"^repository-code: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert (cited[1] if cited else "") == repository(PROJECT)


def test_the_link_is_made_from_the_address():
    assert repository(WITH_ADDRESS) == ADDRESS
    place = "github/somebody/compopt/blob/main/docs/tutorial.ipynb"
    assert f"(https://colab.research.google.com/{place})" in sentence(WITH_ADDRESS)
    if not repository(PROJECT):
        assert "wheel" in sentence(PROJECT)
