"""Every snippet of the documentation runs; links lead to files."""

import importlib.util
import inspect
import json
import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from torch import distributed as dist

from docs.public_api import pages

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)
WITH_SNIPPETS = [page for page in PAGES if "```python" in page.read_text()]


def snippets(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


def run(page: Path, wanted: set[str]) -> None:
    """Run a page's snippets in order, those that need a package only if it is wanted."""
    namespace: dict[str, object] = {"__name__": "snippets"}
    try:
        for package, code in snippets(page):
            if not package or package in wanted:
                exec(compile(code, str(page), "exec"), namespace)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=lambda page: page.stem)
def test_snippets_run(page):
    run(page, {"tensorboard"} if importlib.util.find_spec("tensorboard") else set())


@pytest.mark.parametrize("package", ["lightning", "accelerate"])
def test_recipe_of_a_framework_runs(package):
    pytest.importorskip(package)
    with warnings.catch_warnings():
        # The framework's own.
        warnings.simplefilter("ignore")
        run(ROOT / "docs" / "recipes.md", {package})


def test_every_python_block_is_found():
    for page in WITH_SNIPPETS:
        assert len(snippets(page)) == page.read_text().count("```python")
    assert {"guide", "recipes", "distributed", "methods", "index"} <= {
        page.stem for page in WITH_SNIPPETS
    }


def test_links_and_pictures_exist():
    missing = []
    for page in PAGES:
        text = page.read_text()
        targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
        targets += re.findall(r"\{(?:figure|image)\} (\S+)", text)
        missing += [(page.stem, t) for t in targets if not (page.parent / t).exists()]
    assert not missing


def test_the_tutorial_is_stored_without_outputs():
    assert all(not cell["outputs"] for cell in code_cells())


@pytest.mark.slow
def test_the_tutorial_shows_what_it_says(monkeypatch):
    monkeypatch.delenv("TUTORIAL_STEPS", raising=False)
    monkeypatch.setattr(plt, "show", plt.close)
    names: dict[str, Any] = {}
    for cell in code_cells():
        exec("".join(cell["source"]), names)
    last = {key: names["num_found"](names[f"seen_{key}"][-1][1]) for key in ("adam", "control")}
    assert all(found <= 3 for found in last.values())
    assert [names["num_found"](samples) for _, samples in names["seen_acgd"][1:]] == [8, 8, 8]
    assert names["report"].interacts


def code_cells() -> list[dict]:
    cells = json.loads((ROOT / "docs" / "tutorial.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def public_objects() -> dict[str, object]:
    """Return what each `__all__` of the package names, found by its files."""
    folders = (ROOT / "compopt", ROOT / "compopt/kernels")
    files = [file for folder in folders for file in folder.rglob("__init__.py")]
    modules = {".".join(file.parent.relative_to(ROOT).parts) for file in files}
    modules |= {
        f"compopt.{file.stem}"
        for file in (ROOT / "compopt").glob("*.py")
        if re.search(r"^__all__ = ", file.read_text(), re.M) and file.stem != "__init__"
    }
    # Folders of kernels have no public names of their own.
    imported = {name: importlib.import_module(name) for name in modules}
    loaded = {name: module for name, module in imported.items() if hasattr(module, "__all__")}
    found = {
        f"{module}.{name}": getattr(loaded[module], name)
        for module in loaded
        for name in loaded[module].__all__
    }
    return {name: public for name, public in found.items() if not inspect.ismodule(public)}


def test_every_public_name_is_on_a_page_once():
    text = "\n".join(pages().values())
    directives = re.findall(r"^\.\. auto(?:class|data|exception|function):: (\S+)$", text, re.M)
    public = public_objects()
    assert len(public) > 150
    # A name that several modules have is documented in one of them.
    documented = [(name.rpartition(".")[2], id(public[name])) for name in directives]
    assert len(documented) == len(set(documented))
    wanted = {(name.rpartition(".")[2], id(value)) for name, value in public.items()}
    assert set(documented) == wanted


def test_methods_are_shown_where_they_are_first_met():
    text = pages()["compopt"]
    assert re.search(r"autoclass:: compopt.ACGD\n   :members: .*\bstep\b", text)
    assert ":py:obj:`backward <compopt.ACGD.backward>`" in text.split("autoclass:: compopt.CGD")[1]


def test_default_generator_is_the_only_thing_that_snippets_leave_changed():
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    run(ROOT / "docs" / "index.md", set())
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before
