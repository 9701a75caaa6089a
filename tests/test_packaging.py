"""The layout of the package, and that it imports wherever it should."""

import ast
import importlib
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPOPT = ROOT / "compopt"

LAYERS = {
    "kernels": 0,
    "_arguments": 0,
    "_warn": 0,
    "_typing": 0,
    "_graph": 0,
    "_remedies": 1,
    "_autocast": 1,
    "_checks": 2,
    "_flat": 1,
    "_profiling": 1,
    "_files": 1,
    "checkpoint": 3,
    "games": 3,
    "losses": 3,
    "game": 3,
    "nn": 3,
    "distributed": 3,
    "derivatives": 4,
    "penalties": 5,
    "operators": 5,
    "solvers": 6,
    "optim": 7,
    "diagnosis": 8,
    "compiled": 8,
}
"""A module imports from lower layers and from its own package only."""


def project_imports(path: Path) -> set[str]:
    """Return the first-level modules of compopt that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name.split(".")[1] for name in found if name.startswith("compopt.")}


def modules() -> list[Path]:
    """Return all modules of the package except its front."""
    files = [*COMPOPT.rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    inside_link = COMPOPT / "kernels"
    return sorted(path for path in files if inside_link not in path.parents and path.parent != ROOT)


def layer_of(path: Path) -> str:
    """Return the first-level module that a file belongs to."""
    relative = path.relative_to(ROOT)
    parts = relative.parts if relative.parts[0] == "kernels" else relative.parts[1:]
    return parts[0].removesuffix(".py")


def test_layers_import_from_lower_layers_only():
    upward = {
        (str(path.relative_to(ROOT)), imported)
        for path in modules()
        if layer_of(path) != "__init__"
        for imported in project_imports(path) - {layer_of(path)}
        if LAYERS[imported] >= LAYERS[layer_of(path)]
    }
    assert upward == set()


def test_kernels_import_torch_alone():
    for path in (ROOT / "kernels").rglob("*.py"):
        assert not project_imports(path), path


def test_packages_are_all_listed():
    configuration = (ROOT / "pyproject.toml").read_text()
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in COMPOPT.rglob("__init__.py")
        if COMPOPT / "kernels" not in path.parents
    }
    kernels = (path.parent.relative_to(ROOT) for path in (ROOT / "kernels").rglob("__init__.py"))
    on_disk.update(".".join(("compopt", *path.parts)) for path in kernels)
    listed = configuration.split("packages = [", 1)[1].split("]", 1)[0]
    assert {line.strip(' ",') for line in listed.strip().splitlines()} == on_disk


def test_modules_are_short():
    folders = ("compopt", "kernels", "tests", "benchmarks", "examples")
    files = {path.resolve() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    sizes = {
        str(path.relative_to(ROOT)): sum(
            1 for line in path.read_text().splitlines() if line.strip()
        )
        for path in files
    }
    assert {name.split("/")[0] for name in sizes} == set(folders)
    assert not {name: size for name, size in sizes.items() if size > 300}


def test_named_tuples_have_no_further_base():
    """Only Python 3.11 and later import one that is generic."""
    found = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
            if len(bases) > 1 and "NamedTuple" in bases:
                found.append(f"{path.name}: {node.name}")
    assert not found


def test_kernels_is_a_relative_link():
    link = COMPOPT / "kernels"
    assert link.is_symlink()
    assert str(link.readlink()) == "../kernels"


@pytest.mark.parametrize("links", [True, False])
def test_a_checkout_without_links_is_mapped(links, tmp_path):
    """With links the mapping has a single entry: then an editable install is a plain path."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "compopt").mkdir()
    if links:
        (tmp_path / "compopt" / "kernels").symlink_to(ROOT / "kernels", target_is_directory=True)
    else:
        (tmp_path / "compopt" / "kernels").write_text("../kernels")
    program = """
import runpy, setuptools
setuptools.setup = lambda **options: print(options)
runpy.run_path("setup.py")
"""
    mapped = {"": "."} if links else {"": ".", "compopt.kernels": "kernels"}
    assert ast.literal_eval(in_new_process(program, cwd=tmp_path)) == {"package_dir": mapped}


def in_new_process(program: str, *options: str, cwd: Path) -> str:
    """Run a program in a new interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, *options, "-c", program],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SAME_MODULE = """
import compopt, compopt.kernels, compopt.kernels.cg.reference
from pathlib import Path
print(Path(compopt.kernels.__file__).resolve())
"""


@pytest.mark.parametrize("where", ["root", "elsewhere"])
def test_kernels_import_as_part_of_the_package(where, tmp_path):
    cwd = {"root": ROOT, "elsewhere": tmp_path}[where]
    assert in_new_process(SAME_MODULE, cwd=cwd) == str(ROOT / "kernels" / "__init__.py")


def test_kernels_refuse_to_be_imported_as_a_second_copy():
    program = "try:\n    import kernels\nexcept ImportError as error:\n    print(error)"
    assert "must be imported as compopt.kernels" in in_new_process(program, cwd=ROOT)


def test_imports_without_triton_or_device(tmp_path):
    program = """
import sys
sys.modules["triton"] = None
import compopt, torch
assert not torch.cuda.is_initialized()
print(compopt.ACGD.__name__)
"""
    assert in_new_process(program, cwd=tmp_path) == "ACGD"


def test_imports_where_torch_has_no_distributed(tmp_path):
    """Some builds lack it; there the package works in one process. Nor is it all imported."""
    program = """
import sys
import torch.distributed as dist
del dist.ProcessGroup, dist.Work
import compopt
assert "torch.distributed.tensor" not in sys.modules
print(compopt.ACGD.__name__)
"""
    assert in_new_process(program, cwd=tmp_path) == "ACGD"


LAZY = [
    "compopt.compiled",
    "compopt.games",
    "compopt.losses",
    "compopt.nn",
    "compopt.optim.rivals",
]


def test_subpackages_are_imported_when_first_asked_for(tmp_path):
    program = f"""
import sys
import compopt
assert not set({LAZY}) & set(sys.modules)
for name in {LAZY}:
    assert eval(name) is sys.modules[name]
"""
    assert in_new_process(program, cwd=tmp_path) == ""


@pytest.mark.parametrize("name", ["compopt", "compopt.optim"])
def test_names_are_those_of_the_interface_and_all_can_be_had(name):
    module = importlib.import_module(name)
    assert dir(module) == sorted(module.__all__)
    for public in module.__all__:
        assert getattr(module, public) is not None
    # As in a star import.
    assert set(module.__all__) <= {public for public, _ in inspect.getmembers(module)}
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'bilinear'"):
        module.bilinear  # noqa: B018


def test_every_module_with_public_names_can_be_reached_from_the_top():
    import compopt

    for name in public_modules():
        found = compopt
        for part in name.split(".")[1:]:
            assert part in found.__all__ or part == "diagnosis", name
            found = getattr(found, part)
        assert found.__name__ == name


def public_modules() -> list[str]:
    """Return the packages of compopt, all of which have public names."""
    packages = {path.parent for path in COMPOPT.rglob("__init__.py")}
    return sorted(".".join(path.relative_to(ROOT).parts) for path in packages)


def test_import_is_silent_and_leaves_settings_alone(tmp_path):
    program = """
import torch
before = torch.get_default_dtype(), torch.get_num_threads(), torch.random.get_rng_state().sum()
import compopt
after = torch.get_default_dtype(), torch.get_num_threads(), torch.random.get_rng_state().sum()
assert before == after
"""
    assert in_new_process(program, "-W", "error", cwd=tmp_path) == ""
