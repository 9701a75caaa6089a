"""Files of the project agree with each other."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version() -> str:
    return re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]


def test_the_version_has_an_entry_in_the_changelog():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] in (version(), "Unreleased")
    assert version() in headings


def test_the_version_to_cite_is_that_of_the_package():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)[1]
    assert cited == version()


def test_the_licence_is_the_one_that_is_declared():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert 'license = "MIT"' in (ROOT / "pyproject.toml").read_text()
    assert "license: MIT" in (ROOT / "CITATION.cff").read_text()


def test_workflows_run_what_the_project_has():
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert [path.stem for path in workflows] == ["docs", "tests", "wheels"]
    text = "".join(path.read_text() for path in workflows)
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert set(re.findall(r"run: make (\S+)", text)) <= set(targets)
    for script in re.findall(r"\.ci/\S+", text):
        assert (ROOT / script).exists(), script
    # Only the jobs that publish may ask for an identity, and no token is stored anywhere.
    assert text.count("id-token: write") == 2
    assert "secrets." not in text
