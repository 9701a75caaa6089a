"""Tables of the first sweep: 32 pixels, an eighth of the width, 120 seconds a cell."""

import csv
import statistics
from pathlib import Path

from benchmarks.cifar10.report.words import DISTANCES
from benchmarks.harness import markdown_table

FIRST, SECOND = DISTANCES
COLUMNS = [(loss, name) for loss in ("wgan", "bce") for name in ("adam", "acgd")]
SOLVES = {
    "adam": "Adam",
    "extra-adam": "ExtraAdam",
    "acgd-quarter": "ACGD, curvature from a quarter of the batch",
    "acgd-half": "ACGD, curvature from half of the batch",
    "acgd-one-iteration": "ACGD, one iteration",
    "acgd-rtol5e-2": "ACGD, rtol=5e-2",
    "acgd": "ACGD, rtol=1e-2",
    "acgd-rtol1e-6": "ACGD, rtol=1e-6 (published)",
}
"""Compared on the zero-sum cross entropy without a term, by name in the protocol."""

Values = dict[tuple[str, ...], list[float]]


def read_values(file: Path) -> Values:
    """Return the values over seeds by optimizer, loss, term, generator and metric."""
    values: Values = {}
    with file.open(newline="") as stream:
        for row in csv.DictReader(stream):
            key = tuple(row[n] for n in ("optimizer", "loss", "term", "generator", "metric"))
            values.setdefault(key, []).append(float(row["value"]))
    return values


def _text(found: list[float] | None, digits: int = 1) -> str:
    if not found:
        return "did not finish"
    mean = f"{statistics.fmean(found):,.{digits}f}"
    return mean if len(found) == 1 else f"{mean} ± {statistics.stdev(found):,.{digits}f}"


def terms_table(values: Values) -> str:
    """Return both distances by explicit term, loss and optimizer, then single cells."""

    def cell(*key: str) -> str:
        second = values.get((*key, "raw", SECOND))
        first = _text(values.get((*key, "raw", FIRST)))
        return f"{first} ({_text(second, 0)})" if second else first

    terms = dict.fromkeys(key[2] for key in values)
    heads = ["explicit term", *(f"{loss}, {name}" for loss, name in COLUMNS)]
    table = [[term, *(cell(name, loss, term) for loss, name in COLUMNS)] for term in terms]
    shown = {*COLUMNS, *(("bce", name) for name in SOLVES)}
    others = [k for k in dict.fromkeys(key[:3] for key in values) if (k[1], k[0]) not in shown]
    listed = "; ".join(f"{' '.join(key)} {cell(*key)}" for key in others)
    return f"{markdown_table(heads, table)}\n\nA single seed each: {listed}."


def solves_table(values: Values) -> str:
    """Return quality after equal seconds, by the way of computing a step."""
    columns = [("raw", "steps", 0), ("raw", FIRST, 1), ("ema", FIRST, 1), ("raw", SECOND, 0)]
    rows = [
        [title, *(_text(values.get((name, "bce", "none", g, m)), d) for g, m, d in columns)]
        for name, title in SOLVES.items()
    ]
    heads = ["optimizer", "steps", "distance", "averaged generator", "second distance"]
    return markdown_table(heads, rows)
