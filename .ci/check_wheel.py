"""Build the sdist and the wheel, and use the wheel from an environment that lacks the checkout."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

USE = """
import pathlib, sys, torch, compopt, compopt.kernels
assert "site" in compopt.__file__, compopt.__file__
assert pathlib.Path(compopt.kernels.__file__).parent.parent == pathlib.Path(compopt.__file__).parent
assert "triton" not in sys.modules
x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
optimizer = compopt.ACGD([x], [y], lr=0.1)
optimizer.step((x * y).sum())
print("wheel:", compopt.__version__, optimizer.last_step)
"""


def run(*command: str, cwd: Path) -> None:
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


def main() -> None:
    """Build, compare the contents with the tracked files, install, use."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        # A clone, because a build in the tree could pick up what an earlier build left there.
        clone = work / "clone"
        run("git", "clone", "--quiet", str(ROOT), str(clone), cwd=work)
        run(sys.executable, "-m", "build", "--outdir", str(work / "dist"), str(clone), cwd=work)
        (wheel,) = (work / "dist").glob("*.whl")
        (sdist,) = (work / "dist").glob("*.tar.gz")
        names = set(zipfile.ZipFile(wheel).namelist())
        modules = {name for name in names if name.endswith(".py")}
        if modules != tracked_modules():
            sys.exit(f"The wheel's modules differ: {sorted(modules ^ tracked_modules())}")
        if "compopt/py.typed" not in names:
            sys.exit("The wheel lacks compopt/py.typed.")
        with tarfile.open(sdist) as archive:
            if not any(name.endswith("/kernels/__init__.py") for name in archive.getnames()):
                sys.exit("The sdist lacks kernels/.")
        site = work / "site"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        run(*pip, "--no-deps", "--target", str(site), str(wheel), cwd=work)
        # -P and PYTHONPATH: the wheel is found before the editable install of the checkout.
        program = f"import sys; sys.path.insert(0, {str(site)!r})\n{USE}"
        run(sys.executable, "-P", "-c", program, cwd=work)
        shutil.rmtree(site)


if __name__ == "__main__":
    main()
