"""Pages of the report: of a sweep, and of all committed results."""

import csv
import textwrap
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.cifar10.choose import SEEDS
from benchmarks.cifar10.contrasts import LEVEL
from benchmarks.cifar10.folder import write_json
from benchmarks.cifar10.protocol import load_protocol
from benchmarks.cifar10.report import figures
from benchmarks.cifar10.report.contents import (
    RANKED,
    Report,
    contrasts_table,
    finals_table,
    headline,
    methods_table,
    monitor_text,
    progress_table,
    trials_table,
    value_rows,
)
from benchmarks.cifar10.stored import Result, load_results, store_results
from benchmarks.cifar10.sweep import Sweep

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results" / "cifar10"
PAGE, README = ROOT / "docs" / "cifar10.md", ROOT / "README.md"

SEARCHES = """{}

Final distances, by the first distance, of trials with random options: one seed, each for the same
cost as a cell above. The strength of the interaction is in multiples of the learning rate.

```{{figure}} ../benchmarks/results/cifar10/searches.png
:alt: Expected best of k trials, and distances against learning rate and strength
```

The expected best of k trials, and every trial against its learning rate and its strength."""
NO_SEARCHES = (
    "No trial has run: best of k and the sensitivity to learning rate and strength are open."
)


def write_pictures(report: Report, out: Path) -> list[str]:
    """Write the plots that have results; return their names."""
    metric = report.metrics[0]
    medians = [m for name in report.endpoints(metric) if (m := report.median(name))]
    searches = report.searches()
    drawn: dict[str, Figure] = {}
    if any(report.contrasts.values()):
        drawn["forest"] = figures.draw_forest(list(report.contrasts.values()), report.metrics)
    if report.finals:
        drawn["curves"] = figures.draw_curves(report.finals, metric)
    if searches:
        drawn["searches"] = figures.draw_searches(searches)
    if medians:
        drawn["samples"] = figures.draw_samples(medians, metric)
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in drawn.items():
        figure.savefig(out / f"{name}.png", dpi=150)
    return list(drawn)


def write_report(path: Path, out: Path) -> Path:
    """Write the report of a sweep, or of a folder of stored results; return the page's path.

    Args:
        path: folder of the sweep or of stored results.
        out: folder for ``report.md``, ``results.csv``, plots and, for a sweep, ``cells``; created
            if it does not exist.
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
        lines += [contrasts_table(report, pairs), ""] if pairs else []
        lines += [f"![{name}]({name}.png)\n" for name in names]
    with (out / "results.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(value_rows(report))
    page = out / "report.md"
    page.write_text("\n".join(lines) + "\n")
    return page


def _committed() -> tuple[Report, dict[str, list[Result]]]:
    folders = [folder for folder in sorted(RESULTS.iterdir()) if folder.is_dir()]
    parts = {folder.name: load_results(folder) for folder in folders}
    results = [result for own in parts.values() for result in own]
    protocols = map(load_protocol, ("contrasts", "final"))
    pairs = [(one, other) for protocol in protocols for one, other in protocol.contrasts]
    report = Report(results, pairs)
    return report, parts


def _question(report: Report, *, control: bool, penalty: bool) -> str:
    """Return the contrasts with a control, a gradient penalty or another method."""
    pairs = [
        (one, other)
        for one, other in report.pairs
        if (other.startswith("control"), other.endswith("_wgan-gp")) == (control, penalty)
    ]
    return contrasts_table(report, pairs) or f"Open: of {len(SEEDS)} seeds planned, none has run."


def committed_text() -> tuple[str, str]:
    """Return the documentation's page and the README's block, from the committed results."""
    report, parts = _committed()
    metric = report.metrics[0]
    noise = report.finals[0].ceiling(metric)
    medians = [r.run["seed"] for name in report.endpoints(metric) if (r := report.median(name))]
    hours = sum(result.hours for result in report.finals)
    template = (Path(__file__).parent / "page.md").read_text()
    page = template.format(
        headline=_wrapped(headline(report)),
        contrasts=_question(report, control=True, penalty=False),
        methods=methods_table(report),
        progress=progress_table(parts),
        monitor=_wrapped(monitor_text(report)),
        noise=f"{noise:.2f}",
        ranked=f"{RANKED * noise:.2f}",
        level=LEVEL,
        penalty=_question(report, control=False, penalty=True),
        explicit=_question(report, control=False, penalty=False),
        searches=SEARCHES.format(trials_table(report)) if report.searches() else NO_SEARCHES,
        samples="```{figure} ../benchmarks/results/cifar10/samples.png\n:alt: Samples\n```"
        if medians
        else "No samples are stored.",
        hours=f"{hours:.1f}",
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
