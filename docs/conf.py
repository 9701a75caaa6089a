"""Configuration of the documentation: `make docs`."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "compopt"
author = "The compopt developers"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["amsmath", "dollarmath", "substitution"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "compopt"
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
# Headings that the docstrings have besides those of Google's style.
napoleon_custom_sections = ["Cost", "Memory"]
napoleon_use_ivar = True


def soak_sentence() -> str:
    """Return what the stored soak run found."""
    result = json.loads((ROOT / "benchmarks" / "results" / "soak.json").read_text())
    looks = result["looks"]
    middle, last = looks[len(looks) // 2], looks[-1]
    statuses = ", ".join(f"{count} {name}" for name, count in result["statuses"].items())
    return (
        f"{result['steps']} ACGD steps of a GAN on a ring of Gaussians: {statuses}; "
        f"{middle['resident_mb']:.1f} MiB resident after half of them and "
        f"{last['resident_mb']:.1f} MiB at the end, {middle['tensors']} and {last['tensors']} live "
        "tensors."
    )


def precision_table() -> str:
    """Return the stored errors of steps in lower precision."""
    from benchmarks.precision import RESULT, table

    return table(json.loads(RESULT.read_text())["errors"])


myst_substitutions = {"soak": soak_sentence(), "precision": precision_table()}
