"""The report of a sweep: one page that needs no other file, and its pictures as PNG."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.cifar10.report.cells import DISTANCES, Cells
from benchmarks.cifar10.report.curves import AXES, draw_curves
from benchmarks.cifar10.report.page import Shown, render, write_csv
from benchmarks.cifar10.report.pictures import draw_levels, draw_samples, draw_spectra
from benchmarks.cifar10.report.runs import Sweep, load_sweep
from benchmarks.cifar10.report.style import inline_svg, png_uri, save_png, styled

__all__ = ["write_report"]


def write_report(folder: Path, out: Path) -> Path:
    """Write ``report.html``, ``results.csv`` and the pictures; return the page's path.

    Cells that failed, diverged or are not finished are listed and marked, never left out.

    Args:
        folder: of a sweep.
        out: made if it does not exist; files of the same names are replaced.

    Raises:
        FileNotFoundError: if there are no runs in ``folder``.
    """
    sweep = load_sweep(folder)
    cells = Cells(sweep.runs)
    out.mkdir(parents=True, exist_ok=True)
    with styled():
        pictures = _pictures(sweep, cells, out)
    write_csv(cells, out / "results.csv")
    page = out / "report.html"
    page.write_text(render(sweep, cells, pictures), encoding="utf-8")
    return page


def _pictures(sweep: Sweep, cells: Cells, out: Path) -> list[Shown]:
    shown: list[Shown] = []

    def add(
        name: str, figure: Figure | None, title: str, caption: str, *, details: bool = False
    ) -> None:
        if figure is None:
            return
        save_png(figure, out / f"{name}.png")
        # Photographs would only grow as SVG.
        is_svg = not name.startswith("samples")
        content = inline_svg(figure, name) if is_svg else png_uri(out / f"{name}.png")
        shown.append(Shown(title, caption, content, is_svg, figure.get_figwidth(), details))

    judged = dict.fromkeys(
        name for run in sweep.runs for row in run.curve("raw") for name in row["metrics"]
    )
    for metric in [name for name in DISTANCES if name in judged]:
        for generator in ("raw", "ema"):
            # What the average adds shows on one axis as well as on three.
            axes = AXES if generator == "raw" else {"steps": AXES["steps"]}
            for axis, (label, _) in axes.items():
                add(
                    f"{metric}_{axis}_{generator}",
                    draw_curves(cells, metric, axis, generator),
                    f"{metric} against {label}, {generator} generator",
                    "Thin lines are single seeds, thick ones their mean; low is good. At fewer "
                    "images than in the tables, so the values do not compare with those.",
                    details=generator == "ema",
                )
    for loss in cells.losses:
        add(
            f"samples_{loss}",
            draw_samples(cells, loss),
            f"Samples, {loss}",
            "The first 16 samples of the first seed at its last evaluation, not selected; raw "
            "generator.",
        )
    add(
        "spectra_levels",
        draw_levels(cells),
        "Spectra of the critic over training",
        "The mean of the normalised singular values after the first, of the layer where it is "
        "lowest. A steep fall is the sign of collapse that the monitor raises an alarm for.",
    )
    for loss in cells.losses:
        add(
            f"spectra_{loss}",
            draw_spectra(cells, loss),
            f"Last spectra of the critic's layers, {loss}",
            "Singular values over the largest one, by rank from 0 to 1; first seed.",
            details=True,
        )
    return shown
