"""Tables of the documentation, built from the stored results with its pages."""

import csv
import json
import re

from benchmarks import compiled_steps, layer_sizes, small_games, strengths, tolerances
from benchmarks.harness import RESULTS, markdown_table
from compopt.penalties import CATALOGUE, Penalty


def step_cost_section(data: dict) -> str:
    """Return the cost of a step as text and a table for each workload."""
    lines = [
        "Medians of interleaved rounds on random images, new ones at each step. "
        "`python -m benchmarks.step_cost` measures them on your machine. The error is that of the "
        "first step, relative to the exactly solved one; memory is the peak of a process, with all "
        "that its libraries keep, and the most that tensors occupy at once.",
    ]
    for workload in data["workloads"].values():
        conditions = workload["conditions"]
        lines += [
            "",
            f"**{workload['title']}**: {workload['min_parameters'] / 1e6:.2f} M and "
            f"{workload['max_parameters'] / 1e6:.2f} M parameters, batch {workload['batch_size']}, "
            f"lr {workload['lr']:g}; {conditions['processor']}, {conditions['threads']} threads, "
            f"torch {conditions['torch']}, {workload['rounds']} rounds",
            "",
            markdown_table(STEP_COST, map(_step_cost_row, workload["rows"].values())),
        ]
    return "\n".join(lines)


def _step_cost_row(row: dict) -> list[str]:
    if "failure" in row:
        return [row["name"], f"fails: {row['failure']}", *[""] * 4]
    return [
        row["name"],
        f"{row['relative_to_adam']:.2f}",
        f"{row['backward_calls']}",
        f"{row['peak_memory_gb']:.2f}",
        f"{row['peak_tensors_gb']:.2f}" if "peak_tensors_gb" in row else "",
        f"{row['step_error']:.0e}" if "step_error" in row else "",
    ]


STEP_COST = ("optimizer", "time, Adam = 1", "backward calls", "process, GB", "tensors, GB", "error")
ROWS_OF_COST = {"AdvAs": "AdvAs, self-scaling"}


def penalties_section(costs: dict[str, dict]) -> str:
    """Return a table of the penalties with their declared properties and costs."""
    rows = []
    for cls in CATALOGUE.values():
        cost = costs.get(ROWS_OF_COST.get(cls.__name__, cls.__name__), {}).get("alone_relative")
        cells = [
            f"`{cls.__name__}`",
            _term(cls),
            {"min": "generator", "max": "critic", None: "either"}[cls.player],
            _coupling(cls),
            str(cls.order),
            "" if cost is None else f"{cost:.2f}",
        ]
        rows.append(cells)
    return markdown_table(("penalty", "term", "for", "couples", "order", "cost"), rows)


def _term(cls: type[Penalty]) -> str:
    """Return the first sentence of a docstring, with a link to its paper."""
    text = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    text = text.replace("``", "`").replace("|", "\\|").rstrip(".")
    paper = re.search(r"https://arxiv.org/abs/\S+", cls.__doc__ or "")
    return f"{text} ([paper]({paper[0]}))" if paper else text


def _coupling(cls: type[Penalty]) -> str:
    if "detach" in cls.__dataclass_fields__:
        return "only with `detach=False`"
    return "yes" if cls().couples else "no"


def penalty_routes_section(data: dict) -> str:
    """Return the cost of adding an uncoupled term to the loss instead of passing it separately."""
    # Projections are not terms and have no such choice.
    rows = [r for r in data["rows"].values() if "inside_relative" in r and not r["couples"]]
    ratios = {
        unit: sorted(row[f"inside_{unit}"] / row[f"beside_{unit}"] for row in rows)
        for unit in ("relative", "held_mb")
    }
    time, memory = ratios["relative"], ratios["held_mb"]
    conditions = data["conditions"]
    return (
        f"Measured for the uncoupled terms of the table on the networks of the small CIFAR-10 WGAN "
        f"(batch {data['workload']['batch_size']}, {conditions['processor']}, "
        f"{conditions['threads']} threads, medians of "
        f"{data['workload']['rounds']} rounds): in the loss, the step takes {time[0]:.2f} to "
        f"{time[-1]:.2f} times as long as beside it, and its graphs hold {memory[0]:.2f} to "
        f"{memory[-1]:.2f} times as much memory. `python -m benchmarks.penalties` measures it."
    )


def mode_collapse_section(rows: list[dict[str, str]]) -> str:
    """Return the modes found by each method and seed, and the share of good samples."""
    by_name: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append((int(row["modes"]), float(row["good share"])))
    table = []
    for name, found in by_name.items():
        modes, shares = zip(*found, strict=True)
        mean, share = sum(modes) / len(modes), sum(shares) / len(shares)
        table.append((name, " ".join(map(str, modes)), f"{mean:.1f}", f"{share:.0%}"))
    table.sort(key=lambda row: -float(row[2]))
    return markdown_table(("", "modes found of 8, by seed", "mean", "good samples"), table)


def sections() -> dict[str, str]:
    """Return the text of each table by its name in the documentation, from the stored results."""
    step_cost = json.loads((RESULTS / "step_cost.json").read_text())
    penalties = json.loads((RESULTS / "penalties.json").read_text())
    sizes = json.loads(layer_sizes.RESULT.read_text())
    compiled = json.loads(compiled_steps.RESULT.read_text())
    solves = json.loads(tolerances.RESULT.read_text())
    strong = json.loads(strengths.RESULT.read_text())
    with (RESULTS / "mode_collapse" / "modes.csv").open(newline="") as stream:
        modes = list(csv.DictReader(stream))
    return {
        "step_cost": step_cost_section(step_cost),
        "penalties": penalties_section(penalties["rows"]),
        "penalty_routes": penalty_routes_section(penalties),
        "mode_collapse": mode_collapse_section(modes),
        "compiled_steps": small_games.table(compiled["workloads"]),
        "tolerances": tolerances.table(solves["runs"]),
        "strengths": tolerances.table(strong["runs"], strengths.STRENGTHS),
        "layer_sizes": layer_sizes.table(sizes["times_as_fast"]),
    }
