"""Tables of the documentation, made from the stored results when its pages are built."""

import csv
import json
import re
import statistics
from pathlib import Path

from compopt.penalties import CATALOGUE, Penalty

RESULTS = Path(__file__).resolve().parent / "results"


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
            "| optimizer | time, Adam = 1 | backward calls | process, GB | tensors, GB | error |",
            "|---|---|---|---|---|---|",
            *map(_step_cost_row, workload["rows"].values()),
        ]
    return "\n".join(lines)


def _step_cost_row(row: dict) -> str:
    if "failure" in row:
        return f"| {row['name']} | fails: {row['failure']} | | | | |"
    error = f"{row['step_error']:.0e}" if "step_error" in row else ""
    tensors = f"{row['peak_tensors_gb']:.2f}" if "peak_tensors_gb" in row else ""
    return (
        f"| {row['name']} | {row['relative_to_adam']:.2f} | {row['backward_calls']} | "
        f"{row['peak_memory_gb']:.2f} | {tensors} | {error} |"
    )


ROWS_OF_COST = {"AdvAs": "AdvAs, self-scaling"}


def penalties_section(costs: dict[str, dict]) -> str:
    """Return the penalties with what they declare and what they cost."""
    lines = ["| penalty | term | for | couples | order | cost |", "|---|---|---|---|---|---|"]
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
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
    """Return what it costs to put an uncoupled term into the loss instead of beside it."""
    # Projections have no such choice.
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
    """Return the modes found by each regularizer and seed."""
    by_name: dict[str, list[int]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(int(row["modes"]))
    lines = ["| | modes found of 8, by seed | mean |", "|---|---|---|"]
    for name, modes in sorted(by_name.items(), key=lambda item: -sum(item[1])):
        mean = sum(modes) / len(modes)
        lines.append(f"| {name} | {' '.join(map(str, modes))} | {mean:.1f} |")
    return "\n".join(lines)


FIRST, SECOND = "fd_cifar10net_v1", "fd_effnetlite0_r96_p320"
TABLE_OF_TERMS = {"adam": "Adam", "acgd": "ACGD"}
COSTS_COMPARED = {
    "adam": "Adam",
    "extra-adam": "ExtraAdam",
    "acgd-quarter": "ACGD, curvature from a quarter of the batch",
    "acgd-half": "ACGD, curvature from half of the batch",
    "acgd-one-iteration": "ACGD, one iteration",
    "acgd-rtol5e-2": "ACGD, rtol=5e-2 (default)",
    "acgd": "ACGD, rtol=1e-2",
    "acgd-rtol1e-6": "ACGD, rtol=1e-6 (published)",
}
"""Optimizers compared on the zero-sum cross entropy without a term, by name in the protocol."""
OTHER_CELLS = {
    ("adam-5-critic-steps", "wgan", "wgan-gp"): "Adam with WGAN-GP and five critic steps, wgan",
    ("adam-lr1e-4", "wgan", "none"): "Adam alone at an eighth of the learning rate, wgan",
    ("adam-lr2.4e-4", "wgan", "none"): "at 0.3 times it",
    ("adam-lr2.4e-3", "wgan", "none"): "at 3 times it",
    ("adam-lr1e-4", "bce", "none"): "Adam alone at an eighth of the learning rate, bce",
    ("adam-lr2.4e-4", "bce", "none"): "at 0.3 times it",
    ("adam-lr2.4e-3", "bce", "none"): "at 3 times it",
    ("acgd-published", "wgan", "none"): "ACGD with everything as published, wgan",
    ("acgd-published", "bce", "none"): "bce",
}
"""Cells that stand in no table, in words."""


class Results:
    """The figures of a sweep, as its report writes them.

    Args:
        rows: of ``results.csv``.
    """

    def __init__(self, rows: list[dict[str, str]]) -> None:
        self._values: dict[tuple[str, ...], list[float]] = {}
        names = ("optimizer", "loss", "term", "generator", "metric")
        for row in rows:
            key = tuple(row[name] for name in names)
            self._values.setdefault(key, []).append(float(row["value"]))

    def text(self, *key: str, digits: int = 1) -> str:
        """Return the mean over seeds and, of several, the standard deviation."""
        values = self._values.get(key)
        if not values:
            return "did not finish"
        mean = f"{statistics.fmean(values):,.{digits}f}"
        return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):,.{digits}f}"

    def both(self, *key: str) -> str:
        """Return both distances of the raw generator, the second in brackets."""
        first = self.text(*key, "raw", FIRST)
        if (*key, "raw", SECOND) not in self._values:
            return first
        return f"{first} ({self.text(*key, 'raw', SECOND, digits=0)})"

    def terms(self) -> list[str]:
        """Return the explicit terms in order of appearance."""
        return list(dict.fromkeys(key[2] for key in self._values))


def cifar10_section(results: Results) -> str:
    """Return the table of explicit terms, by loss and optimizer."""
    columns = [(loss, name) for loss in ("wgan", "bce") for name in TABLE_OF_TERMS]
    heads = " | ".join(f"{loss}, {TABLE_OF_TERMS[name]}" for loss, name in columns)
    lines = [f"| explicit term | {heads} |", "|---" * (len(columns) + 1) + "|"]
    for term in results.terms():
        cells = []
        for loss, name in columns:
            cells.append(results.both(name, loss, term))
        lines.append(f"| {term} | {' | '.join(cells)} |")
    others = (f"{title} {results.both(*key)}" for key, title in OTHER_CELLS.items())
    return "\n".join([*lines, "", f"Besides, a single seed each: {'; '.join(others)}."])


def cifar10_cost_section(results: Results) -> str:
    """Return quality in equal seconds, by how a step is computed."""
    lines = ["| optimizer | steps | distance | averaged generator | second distance |"]
    lines.append("|---|---|---|---|---|")
    for name, title in COSTS_COMPARED.items():
        key = (name, "bce", "none")
        cells = [
            results.text(*key, "raw", "steps", digits=0),
            results.text(*key, "raw", FIRST),
            results.text(*key, "ema", FIRST),
            results.text(*key, "raw", SECOND, digits=0),
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sections() -> dict[str, str]:
    """Return the text of each table by its name in the documentation, from the stored results."""
    step_cost = json.loads((RESULTS / "step_cost.json").read_text())
    penalties = json.loads((RESULTS / "penalties.json").read_text())
    with (RESULTS / "mode_collapse" / "modes.csv").open(newline="") as stream:
        modes = list(csv.DictReader(stream))
    with (RESULTS / "cifar10" / "results.csv").open(newline="") as stream:
        cifar10 = Results(list(csv.DictReader(stream)))
    return {
        "step_cost": step_cost_section(step_cost),
        "penalties": penalties_section(penalties["rows"]),
        "penalty_routes": penalty_routes_section(penalties),
        "mode_collapse": mode_collapse_section(modes),
        "cifar10": cifar10_section(cifar10),
        "cifar10_cost": cifar10_cost_section(cifar10),
    }
