"""The page: what was asked, what came out, how far the computing time went."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.cifar10.contrasts import LEVEL, Contrast, contrast, holm
from benchmarks.cifar10.folder import write_json
from benchmarks.cifar10.protocol import load_protocol
from benchmarks.cifar10.report import early, figures
from benchmarks.cifar10.report.words import DISTANCES, compared, over, words
from benchmarks.cifar10.stored import Result, endpoints, load_results, store_results
from benchmarks.cifar10.sweep import Sweep
from benchmarks.harness import markdown_table

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results" / "cifar10"
PAGE, README = ROOT / "docs" / "cifar10.md", ROOT / "README.md"
SEEDS = 8
"""That the plan has for each contrast."""
PLANNED = {"final": (104, 8.7), "long": (12, 4.0), "32 pixels": (20, 5.0)}
"""Cells and core-hours of the parts of the plan that have no protocol before tuning is done."""
RANKED = 0.25
"""Share of the distance of noise below which methods are ranked."""

HEADS = ["contrast", "distance", "seeds", "first", "second", "ratio", "95 % interval", "p", "Holm"]


@dataclass
class Report:
    """What the tables and pictures are made of.

    Attributes:
        results: stored cells, trials among them.
        pairs: methods that are compared, fixed before anything ran.
        metrics: distances that all cells of the pairs were judged by; the first leads.
        contrasts: by distance, in the order of the pairs.
    """

    results: list[Result]
    pairs: list[tuple[str, str]]
    metrics: list[str] = field(init=False)
    contrasts: dict[str, list[Contrast]] = field(init=False)

    def __post_init__(self) -> None:
        measured = {name for result in self.results for name in result.metrics}
        self.metrics = [name for name in DISTANCES if name in measured]
        self.contrasts = {}
        for metric in self.metrics:
            found = self.endpoints(metric)
            made = (contrast(found, one, other) for one, other in self.pairs)
            self.contrasts[metric] = [c for c in made if c is not None]

    @property
    def finals(self) -> list[Result]:
        """All that are not trials of a search."""
        return [result for result in self.results if not result.is_trial]

    def endpoints(self, metric: str) -> dict[str, dict[int, float]]:
        """Return the endpoints by method and seed."""
        return endpoints(self.results, metric)

    def distance(self, method: str, metric: str, seeds: Sequence[int] | None = None) -> float:
        """Return the geometric mean of a method's endpoints."""
        found = self.endpoints(metric)[method]
        values = [found[seed] for seed in (found if seeds is None else seeds)]
        return math.exp(sum(values) / len(values))

    def is_poor(self, method: str) -> bool:
        """Whether any distance is above a quarter of that of noise: too far for a ranking."""
        own = next(result for result in self.finals if result.method == method)
        return any(
            self.distance(method, metric) > RANKED * own.ceiling(metric)
            for metric in self.metrics
            if method in self.endpoints(metric)
        )

    def best(self, methods: Sequence[str], metric: str) -> str:
        """Return the method of the least distance."""
        return min(methods, key=lambda method: self.distance(method, metric))

    def median(self, method: str) -> Result | None:
        """Return the stored result with samples that is nearest to the median seed."""
        metric = self.metrics[0]
        own = [r for r in self.finals if r.method == method and r.endpoint(metric) is not None]
        ordered = sorted(own, key=lambda result: result.endpoint(metric) or 0.0)
        middle = (len(ordered) - 1) // 2
        near = sorted(range(len(ordered)), key=lambda place: abs(place - middle))
        return next((ordered[place] for place in near if ordered[place].picture), None)


def headline(report: Report) -> str:
    """Return what a reader may quote, with what speaks against it beside it."""
    first = report.metrics[0]
    made = report.contrasts[first]
    sides: dict[str, list[str]] = {"lower": [], "higher": [], "level": []}
    for index, found in enumerate(made):
        sides[found.verdict].append(_sentence(found, report, index))
    best = report.best(list(report.endpoints(first)), first)
    limits = [f"The least distance of all: {words(best)}."]
    poor = [words(method) for method in report.endpoints(first) if report.is_poor(method)]
    limits += [f"Above a quarter of noise, where nothing is ranked: {'; '.join(poor)}."] * bool(
        poor
    )
    counts = sorted(len(found.seeds) for found in made)
    # The least p of a sign-flip test.
    if 2 ** (1 - counts[-1]) * len(made) > LEVEL:
        seeds = "to".join(f" {count} " for count in dict.fromkeys((counts[0], counts[-1])))
        limits.append(f"With{seeds}of {SEEDS} planned seeds no test can be significant.")
    if not any(result.is_trial for result in report.results):
        limits.append("Nothing was tuned.")
    if not _groups(report)["explicit"]:
        limits.append("No explicit term has run yet.")
    text = " ".join(sides["lower"] or ["No contrast speaks for competition."])
    against = " ".join(sides["higher"] + sides["level"] + limits)
    return f"{text} **Against it:** {against}"


def _sentence(found: Contrast, report: Report, index: int) -> str:
    ratios = [made[index].ratio for made in report.contrasts.values()]
    further = "".join(f", {ratio:.2f} by a second distance" for ratio in ratios[1:])
    start, other = compared(found.one, found.other)
    return (
        f"{start} ends at **{ratios[0]:.2f} times** the Frechet distance of {other} "
        f"(95 % interval {_interval(found)}; {len(found.seeds)} paired seeds{further})."
    )


def _interval(found: Contrast) -> str:
    return f"{math.exp(found.low):.2f} to {math.exp(found.high):.2f}"


def contrasts_table(report: Report, others: Sequence[str]) -> str:
    """Return a row for each distance and contrast with one of ``others``."""
    rows = []
    for metric, made in report.contrasts.items():
        for found, adjusted in zip(made, holm([c.p_value for c in made]), strict=True):
            if found.other not in others:
                continue
            rows.append(
                [
                    over(found.one, found.other),
                    DISTANCES[metric],
                    len(found.seeds),
                    f"{report.distance(found.one, metric, found.seeds):.3g}",
                    f"{report.distance(found.other, metric, found.seeds):.3g}",
                    f"{found.ratio:.2f}",
                    _interval(found),
                    f"{found.p_value:.4f}",
                    f"{adjusted:.4f}",
                ]
            )
    return markdown_table(HEADS, rows)


def methods_table(report: Report) -> str:
    """Return a row for each method: its cells, both distances, and what a step takes."""
    rows = []
    for method in dict.fromkeys(result.method for result in report.finals):
        own = [result for result in report.finals if result.method == method]
        last = [result.evaluations[-1] for result in own if result.evaluations]
        diverged = sum(result.state == "diverged" for result in own)
        row = [words(method), f"{len(own)}" + (f", {diverged} diverged" if diverged else "")]
        for metric in report.metrics:
            row.append(_with_range(report.endpoints(metric).get(method, {})))
        row[0] += " ‡" if report.is_poor(method) else ""
        steps = [row_["step"] for row_ in last]
        row.append(f"{sum(steps) / len(steps):,.0f}" if steps else "")
        rows.append(row)
    heads = ["method", "seeds", *(DISTANCES[name] for name in report.metrics), "steps"]
    return markdown_table(heads, rows)


def finals_table(report: Report) -> str:
    """Return what the averaged generators score after the last step; empty if nothing does."""
    rows: dict[str, dict[str, list[float]]] = {}
    for result in report.finals:
        for row in result.evaluations:
            if row["final"] and row["generator"] == "ema":
                for name, value in row["metrics"].items():
                    rows.setdefault(result.method, {}).setdefault(name, []).append(value)
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = [
        [words(method), *(f"{np.mean(row.get(name, math.nan)):.4g}" for name in names)]
        for method, row in rows.items()
    ]
    return markdown_table(["method, last step, mean", *names], table) if names else ""


def _with_range(found: dict[int, float]) -> str:
    if not found:
        return ""
    values = [math.exp(value) for value in found.values()]
    mean = math.exp(sum(found.values()) / len(found))
    return f"{mean:.3g} ({min(values):.3g} to {max(values):.3g})"


def progress_table(parts: dict[str, list[Result]]) -> str:
    """Return how far the plan has come, part by part, in cells and core-hours of training."""
    costs = [r.evaluations[-1].get("cost", 0) for rs in parts.values() for r in rs if r.hours]
    hours = sum(r.hours for rs in parts.values() for r in rs)
    pace = hours / sum(costs) if costs else 0.0
    rows = []
    for name in ("contrasts", "tuning"):
        cells = load_protocol(name).cells()
        planned = pace * sum(cell.budget or 0.0 for cell in cells)
        done = parts.get(name, [])
        rows.append([name, len(cells), len(done), planned, sum(r.hours for r in done)])
    for name, (count, planned) in PLANNED.items():
        done = parts.get(name, [])
        rows.append([name, count, len(done), planned, sum(r.hours for r in done)])
    rows.append(["all", *(sum(row[column] for row in rows) for column in range(1, 5))])
    texts = [[*row[:3], f"{row[3]:.1f}", f"{row[4]:.1f}"] for row in rows]
    return markdown_table(["part", "cells planned", "done", "core-hours planned", "spent"], texts)


def write_pictures(report: Report, out: Path) -> list[str]:
    """Write the pictures for which there are results; return their names."""
    metric = report.metrics[0]
    medians = [m for name in report.endpoints(metric) if (m := report.median(name))]
    trials = [result for result in report.results if result.is_trial]
    drawn: dict[str, Figure] = {}
    if any(report.contrasts.values()):
        drawn["forest"] = figures.draw_forest(list(report.contrasts.values()), report.metrics)
    if report.finals:
        drawn["curves"] = figures.draw_curves(report.finals, metric)
    if trials:
        drawn["searches"] = figures.draw_searches(trials, metric)
    if medians:
        drawn["samples"] = figures.draw_samples(medians, metric)
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figure.savefig(out / f"{name}.png", dpi=150)
    return list(drawn)


def write_report(path: Path, out: Path) -> Path:
    """Write the report of a sweep, or of a folder of stored results; return the page's path.

    Args:
        path: of either.
        out: for ``report.md``, pictures and, of a sweep, ``cells``; made if it does not exist.
    """
    pairs: list[tuple[str, str]] = []
    if (path / "sweep.json").exists():
        sweep = Sweep(path)
        pairs = [(one, other) for one, other in sweep.contrasts]
        store_results(sweep, out / "cells")
        path = out / "cells"
    report = Report(load_results(path), pairs)
    out.mkdir(parents=True, exist_ok=True)
    lines = ["# CIFAR-10", "", f"{len(report.results)} finished cells."]
    if report.metrics:
        names = write_pictures(report, out)
        lines += ["", methods_table(report), "", finals_table(report), ""]
        lines += [contrasts_table(report, [other for _, other in pairs]), ""] if pairs else []
        lines += [f"![{name}]({name}.png)\n" for name in names]
    page = out / "report.md"
    page.write_text("\n".join(lines) + "\n")
    return page


def _committed() -> tuple[Report, dict[str, list[Result]]]:
    folders = [folder for folder in sorted(RESULTS.iterdir()) if folder.is_dir()]
    parts = {folder.name: load_results(folder) for folder in folders}
    results = [result for own in parts.values() for result in own]
    fixed = [(one, other) for one, other in load_protocol("contrasts").contrasts]
    report = Report(results, fixed)
    groups = _groups(report)
    for name in ("penalty", "explicit"):
        if groups["implicit"] and groups[name]:
            # The best of each, by the first distance.
            one, other = (report.best(groups[g], report.metrics[0]) for g in ("implicit", name))
            fixed.append((one, other))
    return Report(results, fixed), parts


def _question(report: Report, group: str) -> str:
    """Return the contrast of the best implicit with the best method of a group, or what lacks."""
    others = _groups(report)[group]
    if others:
        return contrasts_table(report, [report.best(others, report.metrics[0])])
    return f"Open: no such cell has run at 16 pixels, of {SEEDS} seeds planned for each method."


def committed_text() -> tuple[str, str]:
    """Return the documentation's page and the README's block, from the committed results."""
    report, parts = _committed()
    values = early.read_values(RESULTS / "results.csv")
    metric = report.metrics[0]
    noise = report.finals[0].ceiling(metric)
    medians = [r.run["seed"] for name in report.endpoints(metric) if (r := report.median(name))]
    hours = sum(result.hours for result in report.finals)
    template = (Path(__file__).parent / "page.md").read_text()
    trials = [result for result in report.results if result.is_trial]
    page = template.format(
        headline=_wrapped(headline(report)),
        contrasts=contrasts_table(report, [other for _, other in report.pairs[:2]]),
        methods=methods_table(report),
        progress=progress_table(parts),
        noise=f"{noise:.2f}",
        ranked=f"{RANKED * noise:.2f}",
        level=LEVEL,
        penalty=_question(report, "penalty"),
        explicit=_question(report, "explicit"),
        searches="```{figure} ../benchmarks/results/cifar10/searches.png\n:alt: Trials\n```"
        if trials
        else "No trial has run: best of k and the sensitivity to learning rate and strength are "
        "open.",
        samples="```{figure} ../benchmarks/results/cifar10/samples.png\n:alt: Samples\n```"
        if medians
        else "No samples are stored.",
        hours=f"{hours:.1f}",
        terms=early.terms_table(values),
        solves=early.solves_table(values),
    )
    text = (
        "**[CIFAR-10](docs/cifar10.md) at 16 pixels without any term, beside a control: the same "
        f"step without interaction.** {headline(report)}"
    )
    picture = "![Ratios of distances with their intervals](benchmarks/results/cifar10/forest.png)"
    block = f"{_wrapped(text)}\n\n{picture}"
    return page, block


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 110, break_on_hyphens=False)


def _groups(report: Report) -> dict[str, list[str]]:
    """Return methods: competitive without a term, with a gradient penalty, and all explicit."""
    groups: dict[str, list[str]] = {"implicit": [], "penalty": [], "explicit": []}
    measured = report.endpoints(report.metrics[0])
    for result in report.finals:
        optimizer, term = result.run["optimizer"], result.run["term"]["kind"]
        is_competitive = optimizer["kind"] in ("cgd", "acgd")
        if is_competitive and optimizer.get("interaction", 1) > 0 and term == "none":
            group = "implicit"
        elif is_competitive:
            continue
        else:
            group = "penalty" if term == "wgan-gp" else "explicit"
        if result.method in measured and result.method not in groups[group]:
            groups[group].append(result.method)
    groups["explicit"] += groups["penalty"]
    return groups


def write_committed() -> None:
    """Write the page, the README's block, ``contrasts.json`` and the pictures."""
    report, _ = _committed()
    write_pictures(report, RESULTS)
    rows = {
        metric: [{**asdict(c), "ratio": c.ratio} for c in made]
        for metric, made in report.contrasts.items()
    }
    write_json(RESULTS / "contrasts.json", rows)
    page, block = committed_text()
    PAGE.write_text(page)
    before, _, rest = README.read_text().partition("<!-- cifar10 -->\n")
    after = rest.partition("<!-- /cifar10 -->")[2]
    README.write_text(f"{before}<!-- cifar10 -->\n{block}\n<!-- /cifar10 -->{after}")
