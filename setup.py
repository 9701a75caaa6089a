"""Where the packages lie; everything else is in ``pyproject.toml``."""

from pathlib import Path

from setuptools import setup

# One folder holds all packages, so that an editable install is a plain path, which type checkers
# follow. `compopt/kernels` is a link; a checkout without links has a text file in its place.
package_dir = {"": "."}
if not Path("compopt/kernels").is_dir():
    package_dir["compopt.kernels"] = "kernels"

setup(package_dir=package_dir)
