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
PROGRAM = ROOT / "tests" / "typed_user.py"


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
    program = Path(shutil.copy(PROGRAM, work))
    run(python, "-I", program, cwd=work)
    check_types(python, program)
    return python


def check_types(python: Path, program: Path) -> None:
    """Run both type checkers on a program, in its folder."""
    cache = f"--cache-dir={python.parents[1] / 'mypy'}"
    command = ["-m", "mypy", "--strict", f"--python-executable={python}", cache]
    run(sys.executable, *command, program, cwd=program.parent)
    command = ["-m", "basedpyright", f"--pythonpath={python}", "--level=error"]
    run(sys.executable, *command, program, cwd=program.parent)


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
        install_and_use(work, "installed", wheel)
        install_and_use(work, "editable", "--editable", checkout)

        without = clone(work, "without-links", links="false")
        run(sys.executable, "-m", "build", "--outdir", work / "dist-2", without, cwd=work)
        check_contents(*(work / "dist-2").glob("*.whl"))


if __name__ == "__main__":
    main()
