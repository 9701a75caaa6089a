"""Build the package in each way that people do, and use and type-check what comes out.

The sdist and the wheel must hold the tracked modules, also where the checkout has no links, and an
installed wheel and an editable install must work and be found by type checkers.
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Run and type-checked; what it says of types must hold for a user.
USE = """
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import compopt
from compopt import ACGD

assert Path(compopt.kernels.__file__ or "").parent.parent == Path(compopt.__file__).parent
assert "triton" not in sys.modules
assert "compopt.nn" not in sys.modules
G, D = nn.Linear(4, 2), nn.Linear(2, 1)
optimizer = ACGD(G.parameters(), D.parameters(), lr=1e-4)
loss: Tensor = D(torch.randn(8, 2)).mean() - D(G(torch.randn(8, 4))).mean()
optimizer.step(loss, max_penalty=compopt.penalties.R1()(D, torch.randn(8, 2)))
print(compopt.__version__, optimizer.last_step, compopt.nn.fuse(G))
print(compopt.games.bilinear, compopt.optim.rivals.OGDA, Path(compopt.__file__).parent)
"""


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command, ending this program if it fails."""
    print("$", *command, flush=True)
    subprocess.run(command, cwd=cwd, check=True)


def tracked_modules() -> set[str]:
    """Return the wheel's paths of the tracked modules."""
    listing = subprocess.run(
        ["git", "ls-files", "compopt/*.py", "kernels/*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return {f"compopt/{path}" if path.startswith("kernels/") else path for path in listing}


def check_contents(wheel: Path) -> None:
    """Compare a wheel with the tracked files."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {name for name in names if name.endswith(".py")}
    if modules != tracked_modules():
        sys.exit(f"The modules of {wheel} differ: {sorted(modules ^ tracked_modules())}")
    for name in ("compopt/py.typed", "compopt/kernels/README.md"):
        if name not in names:
            sys.exit(f"{wheel} lacks {name}.")


def clone(work: Path, name: str, links: str) -> Path:
    """Clone the checkout; a build in the tree could pick up what an earlier build left there."""
    option = f"core.symlinks={links}"
    run("git", "clone", "--quiet", "--config", option, ROOT, work / name, cwd=work)
    return work / name


def install_and_use(work: Path, name: str, *what: str | Path) -> Path:
    """Install into an environment that sees torch of this one, use and check; return its Python."""
    folder = work / name
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=work)
    python = folder / "bin" / "python"
    # Not followed further: an editable install of the checkout in this environment stays unseen.
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    (Path(paths["purelib"]) / "outer.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = ["-m", "pip", "--disable-pip-version-check", "--python", str(python), "install"]
    run(sys.executable, *pip, "--quiet", "--no-deps", "--ignore-installed", *what, cwd=work)
    program = work / "user.py"
    program.write_text(USE)
    run(python, "-I", program, cwd=work)
    check_types(python, program)
    return python


def check_types(python: Path, program: Path, *options: str) -> None:
    """Run both type checkers on a program, or a folder of them, in its folder."""
    folder = program if program.is_dir() else program.parent
    cache = f"--cache-dir={python.parents[1] / 'mypy'}"
    command = ["-m", "mypy", "--strict", f"--python-executable={python}", cache, *options]
    run(sys.executable, *command, program, cwd=folder)
    command = ["-m", "basedpyright", f"--pythonpath={python}", "--level=error"]
    run(sys.executable, *command, program, cwd=folder)


def main() -> None:
    """Build in each way, compare the contents with the tracked files, install, use."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        checkout = clone(work, "clone", links="true")
        run(sys.executable, "-m", "build", "--outdir", work / "dist", checkout, cwd=work)
        (wheel,) = (work / "dist").glob("*.whl")
        (sdist,) = (work / "dist").glob("*.tar.gz")
        check_contents(wheel)
        with tarfile.open(sdist) as archive:
            if not any(name.endswith("/kernels/__init__.py") for name in archive.getnames()):
                sys.exit("The sdist lacks compopt/kernels/.")
        python = install_and_use(work, "installed", wheel)
        examples = shutil.copytree(ROOT / "examples", work / "examples")
        # Not typed: some of what examples use, and torch's own `backward`.
        untyped = ("--allow-untyped-calls", "--disable-error-code=import-untyped")
        check_types(python, examples, *untyped)
        install_and_use(work, "editable", "--editable", checkout)

        without = clone(work, "without-links", links="false")
        run(sys.executable, "-m", "build", "--outdir", work / "dist-2", without, cwd=work)
        check_contents(*(work / "dist-2").glob("*.whl"))


if __name__ == "__main__":
    main()
