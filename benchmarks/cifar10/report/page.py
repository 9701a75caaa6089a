"""The page: what the template is filled with."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.cifar10.report.cells import Cell, Cells, better, is_headline
from benchmarks.cifar10.report.findings import findings
from benchmarks.cifar10.report.pictures import alarms
from benchmarks.cifar10.report.published import beside
from benchmarks.cifar10.report.runs import UNFINISHED, Sweep


@dataclass(frozen=True)
class Shown:
    """A picture in the page.

    Attributes:
        title: above it.
        caption: below it.
        content: SVG, or the address of a PNG.
        is_svg: which.
        width: in inches.
        details: whether it is folded away at first.
    """

    title: str
    caption: str
    content: str
    is_svg: bool
    width: float
    details: bool = False


@dataclass(frozen=True)
class Entry:
    """A field of a table.

    Attributes:
        raw, ema: mean and spread over seeds.
        marks: what became of seeds without a result.
        is_best: of its loss, by the raw generator.
        hopeless: near or beyond uniform noise.
        exists: whether the protocol has such a cell.
    """

    raw: str = ""
    ema: str = ""
    marks: str = ""
    is_best: bool = False
    hopeless: bool = False
    exists: bool = True


def entry(cells: Cells, cell: Cell | None, metric: str) -> Entry:
    """Return a cell's field in the table of a metric."""
    if cell is None:
        return Entry(exists=False)
    raw, ema = cell.value(metric), cell.value(metric, "ema")
    best = cells.best(metric, cell.key[1])
    return Entry(
        raw=str(raw) if raw else "",
        ema=str(ema) if ema else "",
        marks="; ".join(cell.marks()),
        is_best=best is not None and best.key == cell.key,
        hopeless=raw is not None and raw.hopeless,
    )


def tables(cells: Cells) -> list[dict[str, Any]]:
    """Return the implicit-versus-explicit tables, one for each headline metric."""
    made = []
    for metric in [name for name in cells.metrics if is_headline(name)]:
        rows = []
        for term in cells.terms:
            fields = [
                entry(cells, cells.by_key.get((optimizer, loss, term)), metric)
                for loss in cells.losses
                for optimizer in cells.optimizers
            ]
            rows.append((term, fields))
        others = [(" · ".join(cell.key), entry(cells, cell, metric)) for cell in cells.others]
        made.append(
            {
                "metric": metric,
                "n": number_judged(cells, metric),
                "better": better(metric),
                "rows": rows,
                "others": others,
            }
        )
    return made


def number_judged(cells: Cells, metric: str) -> int:
    """Return how many images of each generator a metric is of."""
    rows = (row for cell in cells.by_key.values() for row in cell.rows("raw"))
    row = next(row for row in rows if metric in row["metrics"])
    return int(row["n_of"].get(metric, row["n"]))


def bounds(cells: Cells) -> list[dict[str, str]]:
    """Return floor and ceiling of each metric, as stored with the results."""
    rows = [row for cell in cells.by_key.values() for row in cell.rows("raw")]
    made = []
    for metric in cells.metrics:
        row = next((row for row in rows if metric in row.get("floors", {})), None)
        if row is not None:
            made.append(
                {
                    "metric": metric,
                    "n": f"{row['n_of'].get(metric, row['n']):,}",
                    "better": better(metric),
                    "floor": f"{row['floors'][metric]:.4g}",
                    "spread": f"{row.get('floor_stds', {}).get(metric, 0):.2g}",
                    "ceiling": f"{row['ceilings'][metric]:.4g}"
                    if metric in row["ceilings"]
                    else "",
                }
            )
    return made


def costs(cells: Cells) -> list[dict[str, str]]:
    """Return what a step of each cell takes."""

    def text(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:,.{digits}f}"

    return [
        {
            "cell": " · ".join(key),
            "seeds": str(len(cell.runs)),
            "ms": text(1e3 * seconds if (seconds := cell.per_step("seconds")) else None, 1),
            "gradients": text(cell.per_step("gradient_calls"), 2),
            "products": text(cell.per_step("mixed_products"), 2),
            "iterations": text(cell.per_step("num_iter"), 2),
            "memory": text(cell.peak("memory_mib"), 0),
        }
        for key, cell in cells.by_key.items()
    ]


def troubles(cells: Cells) -> list[dict[str, str]]:
    """Return a line for each run that failed, diverged or is not finished, and for each alarm."""
    lines = []
    for run in cells.runs:
        if run.state != "finished":
            step = f"{run.status.get('step', 0):,}"
            reason = str(run.status.get("reason", ""))
            state = f"unfinished ({run.state})" if run.state in UNFINISHED else run.state
            lines.append({"run": run.name, "what": state, "step": step, "why": reason})
        for alarm in alarms(run):
            why = f"layer {alarm.layer}: {alarm.peak:.2f} fell to {alarm.level:.2f}"
            what = "collapse monitor"
            lines.append({"run": run.name, "what": what, "step": f"{alarm.step:,}", "why": why})
    for run in cells.left_out():
        why = "judged with another n, reference or weights than the others; not in the tables"
        lines.append({"run": run.name, "what": "left out", "step": "", "why": why})
    return lines


def environments(cells: Cells) -> list[tuple[str, int]]:
    """Return the machines and versions that runs were computed with, and how many parts each."""
    counts: dict[str, int] = {}
    for run in cells.runs:
        for part in run.environment:
            text = ", ".join(f"{k} {v}" for k, v in part.items() if k != "from_step")
            counts[text] = counts.get(text, 0) + 1
    return list(counts.items())


def judged_with(cells: Cells) -> dict[str, Any]:
    """Return n, protocol and weights of the final evaluations; empty if there are none."""
    rows = [row for cell in cells.by_key.values() for row in cell.rows("raw")]
    if not rows:
        return {}
    weights = {name: digest for row in rows for name, digest in row["other_weights"].items()}
    found = {key: rows[0].get(key, {}) for key in ("n", "protocol", "weights_sha256")}
    return {**found, "weights_sha256": weights | found["weights_sha256"]}


def render(sweep: Sweep, cells: Cells, pictures: list[Shown]) -> str:
    """Return the page as HTML that needs no other file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    states: dict[str, int] = {}
    for run in cells.runs:
        states[run.state] = states.get(run.state, 0) + 1
    config = cells.runs[0].config
    return environment.get_template("page.html.jinja").render(
        description=sweep.description,
        cells=cells,
        config=config,
        states=states,
        findings=findings(cells),
        tables=tables(cells),
        published=beside(cells),
        bounds=bounds(cells),
        costs=costs(cells),
        troubles=troubles(cells),
        environments=environments(cells),
        judged=judged_with(cells),
        pictures=pictures,
    )


def write_csv(cells: Cells, file: Path) -> None:
    """Write every metric of every finished run, and its number of steps, a line each."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("optimizer", "loss", "term", "seed", "generator", "n", "metric", "value"))
        for key, cell in cells.by_key.items():
            for run in cell.runs:
                for generator in ("raw", "ema"):
                    row = run.final(generator)
                    values = {**row["metrics"], "steps": row["step"]} if row else {}
                    for name, value in values.items():
                        seed = run.config["seed"]
                        count = row["n_of"].get(name, row["n"])
                        writer.writerow((*key, seed, generator, count, name, repr(value)))
