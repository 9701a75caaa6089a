"""What the figures allow to be said, in plain words, and what they do not."""

import math
from dataclasses import dataclass

from scipy.stats import t

from benchmarks.cifar10.report.cells import Cell, Cells, Value
from benchmarks.cifar10.report.published import STEPS

COMPETITIVE = ("cgd", "acgd")
LEVEL = 0.05
"""Of a two-sided Welch test of the difference of two means."""


@dataclass(frozen=True)
class Findings:
    """Sentences.

    Attributes:
        shown: what follows from the figures.
        not_shown: what does not.
    """

    shown: list[str]
    not_shown: list[str]


def verdict(first: Value, second: Value) -> str:
    """Return how a distance (low is good) of the first compares: "better", "worse", "alike".

    "better" and "worse" need several seeds a side and means that Welch's test tells apart at
    `LEVEL`; "single" says that a side has one seed only, "noise" that both are near or beyond
    uniform noise, where an order means nothing.
    """
    if first.hopeless and second.hopeless:
        return "noise"
    if first.spread is None or second.spread is None:
        return "single"
    parts = [value.spread**2 / len(value.values) for value in (first, second) if value.spread]
    if parts:
        # The degrees of freedom of Welch and Satterthwaite.
        squares = [
            (value.spread or 0.0) ** 4 / len(value.values) ** 2 / (len(value.values) - 1)
            for value in (first, second)
        ]
        freedom = sum(parts) ** 2 / sum(squares)
        if abs(first.mean - second.mean) <= t.ppf(1 - LEVEL / 2, freedom) * math.sqrt(sum(parts)):
            return "alike"
    elif first.mean == second.mean:
        return "alike"
    return "better" if first.mean < second.mean else "worse"


def agreed(pairs: list[tuple[Value | None, Value | None]]) -> str:
    """Return the verdict of all distances, "disagree" if they differ, "unmeasured" if one lacks."""
    verdicts = {verdict(a, b) if a and b else "unmeasured" for a, b in pairs} or {"unmeasured"}
    if "unmeasured" in verdicts:
        return "unmeasured"
    return verdicts.pop() if len(verdicts) == 1 else "disagree"


WORDS = {
    "better": "better",
    "worse": "worse",
    "alike": "not told apart",
    "disagree": "the distances disagree, so nothing is concluded",
}


def name_of(cell: Cell) -> str:
    """Return a cell in words."""
    optimizer, _, term = cell.key
    return f"{optimizer} without an explicit term" if term == "none" else f"{optimizer} + {term}"


def findings(cells: Cells) -> Findings:
    """Return what the implicit cells show against all others, loss by loss.

    Each pair is compared after the last step and after the same seconds of training: a step of a
    competitive optimizer takes longer, and either comparison alone would be half of the answer.
    """
    shown, not_shown = [], []
    singles: dict[str, int] = {}
    for loss in cells.losses:
        compared: list[Cell] = []
        for first in filter(_is_implicit, _of(cells, loss)):
            # Two implicit cells are a pair once.
            compared.append(first)
            for second in _of(cells, loss):
                if second in compared:
                    continue
                end, same = _pairs(first, second, cells.distances)
                result = agreed(end)
                if result == "single":
                    singles[loss] = singles.get(loss, 0) + 1
                if result not in WORDS:
                    continue
                seconds = min(first.seconds, second.seconds)
                texts = [f"after the last step {_compared(result, end)}"]
                if (equal := agreed(same)) in WORDS:
                    texts.append(f"after the same {seconds:,.0f} s {_compared(equal, same)}")
                sentence = f"{loss}: {name_of(first)} against {name_of(second)}: " + "; ".join(
                    texts
                )
                target = not_shown if result == "disagree" else shown
                target.append(f"{sentence}. {_conditions(first, second)}.")
    if shown:
        shown.insert(0, "By " + " and ".join(cells.distances) + ", low is good, raw generator:")
    else:
        shown.append("No comparison of an implicit with another cell is conclusive.")
    return Findings(shown, not_shown + _limits(cells, singles))


Pairs = list[tuple[Value | None, Value | None]]


def _pairs(first: Cell, second: Cell, distances: list[str]) -> tuple[Pairs, Pairs]:
    seconds = min(first.seconds, second.seconds)
    end = [(first.value(name), second.value(name)) for name in distances]
    curves = [
        (first.at_seconds(name, seconds), second.at_seconds(name, seconds)) for name in distances
    ]
    # A distance may be measured at the end alone.
    return end, [pair for pair in curves if pair != (None, None)]


def _compared(result: str, pairs: Pairs) -> str:
    return f"{WORDS[result]} ({'; '.join(f'{a} against {b}' for a, b in pairs)})"


def _conditions(first: Cell, second: Cell) -> str:
    seeds = f"{len(first.rows('raw'))} and {len(second.rows('raw'))} seeds"
    one, other = first.per_step("seconds"), second.per_step("seconds")
    return f"{seeds}, a step takes {one / other:.1f} times as long" if one and other else seeds


def _of(cells: Cells, loss: str) -> list[Cell]:
    return [cell for key, cell in cells.by_key.items() if key[1] == loss]


def _is_implicit(cell: Cell) -> bool:
    return cell.runs[0].kind in COMPETITIVE and cell.key[2] == "none"


def _limits(cells: Cells, singles: dict[str, int]) -> list[str]:
    limits = []
    for loss, count in singles.items():
        limits.append(
            f"{loss}: comparisons that rest on a single seed on one side: {count}. The figures are "
            "in the tables, and nothing is concluded from them."
        )
    if len(cells.distances) == 1:
        limits.append(
            f"Only one distance was measured, {cells.distances[0]}: a second opinion is missing."
        )
    if not any(metric.startswith("FID-") for metric in cells.metrics):
        limits.append(
            "No FID or IS was measured; the distances here are on other networks and do not "
            "compare with any published figure."
        )
    steps = max(run.config["steps"] for run in cells.runs)
    if steps < STEPS:
        limits.append(
            f"Runs have at most {steps:,} steps, the published ones {STEPS:,}: nothing is shown "
            "about where training ends up."
        )
    widths = {run.config["network"]["width"] for run in cells.runs}
    if widths != {1} and widths != {1.0}:
        listed = ", ".join(f"{width:g}" for width in sorted(widths))
        limits.append(f"The networks are narrower than the published ones (width {listed}).")
    limits.append(
        f"Each comparison is tested at the {LEVEL:.0%} level on its own; among many, some come out "
        "by chance."
    )
    hopeless = sum(
        1
        for cell in cells.by_key.values()
        if any((v := cell.value(m)) and v.hopeless for m in cells.distances)
    )
    if hopeless:
        limits.append(
            f"Cells that end near or beyond the distance of uniform noise, where an order means "
            f"nothing: {hopeless} of {len(cells.by_key)}. They are marked and not ranked."
        )
    unfinished = sum(1 for run in cells.runs if run.state not in ("finished", "diverged", "failed"))
    if unfinished:
        limits.append(f"Runs not finished: {unfinished} of {len(cells.runs)}.")
    return limits
