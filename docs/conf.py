"""Configuration of the documentation: `make docs`."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.harness import markdown_table  # noqa: E402
from benchmarks.tables import sections  # noqa: E402
from docs.colab import sentence  # noqa: E402
from docs.public_api import write_pages  # noqa: E402

project = "compopt"
author = "The compopt developers"
copyright = author  # noqa: A001
extensions = [
    "docs.mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
myst_enable_extensions = ["amsmath", "dollarmath", "substitution"]
myst_heading_anchors = 3
# The tutorial is stored without outputs. TUTORIAL_STEPS shortens its runs.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
html_theme = "furo"
html_title = "compopt"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
# The pages of the interface and the search have the names; the index is wider than a phone.
html_use_index = False
html_domain_indices = False
exclude_patterns = ["_build"]

write_pages(Path(__file__).parent / "api")

autodoc_member_order = "bysource"
autodoc_typehints = "none"
# Headings that the docstrings have besides those of Google's style.
napoleon_custom_sections = ["Cost", "Memory"]
napoleon_use_ivar = True


def stored(name: str) -> dict:
    """Return a file of results."""
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def soak_sentence() -> str:
    """Return what the stored soak run found."""
    result = stored("soak.json")
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


def false_alarms_table() -> str:
    """Return what preflight says of right derivatives."""
    from benchmarks.false_alarms import table

    return table(stored("false_alarms.json")["trials"])


def solver_study_table() -> str:
    """Return products and errors of each way of solving, by setting."""
    settings = stored("solver_study.json")["settings"]
    names = dict.fromkeys(name for setting in settings.values() for name in setting["ways"])
    rows = []
    for name in names:
        cells = []
        for setting in settings.values():
            way = setting["ways"][name]
            error = f"{way['median_error']:.0e}" if way["median_error"] else "reference"
            cells.append(f"{way['mean_products']:.1f}, {error}")
        rows.append([*name.split(" | "), *cells])
    return markdown_table(["rtol", "way of solving", *settings], rows)


def forms_tables() -> dict[str, str]:
    """Return what each form of a loss finds on each problem."""
    from benchmarks.forms import SETTINGS, table

    return {f"forms_{name}": table(name, stored(f"forms_{name}.json")["runs"]) for name in SETTINGS}


def constraints_tables() -> dict[str, str]:
    """Return constrained problems beside Cooper, and the course of one, as tables."""
    from benchmarks.constraints import course_table, table

    result = stored("constraints.json")
    return {
        "constraints": table(result["rows"]),
        "constraints_course": course_table(result["course"]),
    }


def small_games_table() -> str:
    """Return steps of small games in steps of Adam, as a table."""
    from benchmarks.small_games import table

    return table(stored("small_games.json")["games"])


def product_forms_table() -> str:
    """Return time and error of each form of a product."""
    rows = []
    for network, directions in stored("product_forms.json")["workloads"].items():
        for player, forms in directions.items():
            for row in forms:
                compiled = row["compilation_s"]
                set_up = f"{compiled:.0f} s" if compiled else f"{row['set_up']:.2f}"
                figures = set_up, f"{row['product']:.2f}", f"{row['error']:.0e}"
                rows.append([network, player, row["name"], *figures])
    return markdown_table(["network", "products to", "form", "set-up", "product", "error"], rows)


def toy_table() -> str:
    """Return what the CGD paper states beside what its experiments gave here."""
    said = stored("toy/statements.json")
    rows = [
        (r["experiment"], r["published"], r["found"], "agree" if r["agrees"] else "**disagree**")
        for part in said.values()
        for r in part
    ]
    return markdown_table(["experiment", "published", "found", ""], rows)


def poisson_table() -> str:
    """Return the errors of the networks for the Poisson equation."""
    runs = stored("poisson_pinn/curves.json")
    rows = []
    for name, run in runs.items():
        seconds, last = run["curve"][-1]
        smallest = min(error for _, error in run["curve"])
        rows.append([name, run["steps"], f"{seconds:.0f}", f"{last:.1e}", f"{smallest:.1e}"])
    return markdown_table(["method", "steps", "seconds", "last error", "smallest error"], rows)


exponents = stored("step_scaling.json")["exponents"]
myst_substitutions = {
    "colab": sentence((ROOT / "pyproject.toml").read_text()),
    "false_alarms": false_alarms_table(),
    "soak": soak_sentence(),
    "precision": precision_table(),
    "solver_study": solver_study_table(),
    "small_games": small_games_table(),
    "product_forms": product_forms_table(),
    "parameters_exponent": f"{exponents['num_parameters']['acgd']:.2f}",
    "batch_exponent": f"{exponents['batch_size']['acgd']:.2f}",
    "poisson": poisson_table(),
    "toy": toy_table(),
    **constraints_tables(),
    **forms_tables(),
    **sections(),
}
