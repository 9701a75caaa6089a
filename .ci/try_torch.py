"""Run the fast tests with an older torch and Python.

``python .ci/try_torch.py 2.6.0 --python python3.10`` makes an environment in a temporary folder,
with that release, the Triton that it brings and the newest of everything else that fits, and passes
what follows ``--`` to pytest. It needs the package index. ``--dry-run`` prints the commands only.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Return the status of the tests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("torch", help="a release, such as 2.6.0")
    parser.add_argument("--python", default="python3.10", help="the interpreter to use")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    parser.add_argument("options", nargs="*", help="of pytest")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = str(Path(folder) / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", f"torch=={args.torch}"]
        commands = [
            [args.python, "-m", "venv", folder],
            [*install, "-e", f"{ROOT}[dev]"],
            [python, "-m", "pytest", "-q", *args.options],
        ]
        for command in commands:
            print("$", *command, flush=True)
            if not args.dry_run:
                environment = {**os.environ, "PYTHONPATH": str(ROOT)}
                done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
                if done.returncode:
                    return done.returncode
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
