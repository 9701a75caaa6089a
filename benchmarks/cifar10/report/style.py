"""How pictures look: one colour an optimizer, readable in print, on light and on dark."""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

INK = "#1b1b1f"
"""Of text and axes; in pages it follows the colour of the text."""
GREY = "#8c8c8c"

# Okabe and Ito's hues, which all kinds of colour vision tell apart; the light ones darkened to a
# contrast of 3 with a light and with a dark page.
COLORS = {
    "acgd": "#d55e00",
    "cgd": "#b98000",
    "adam-simultaneous": "#0072b2",
    "adam-alternating": "#3d95cf",
    "extra-adam": "#009e73",
    "optimistic-adam": "#bf6497",
}
MARKERS = dict(zip(COLORS, "osD^vP", strict=True))
DASHES = ("-", "--", ":", "-.")

SETTINGS = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "svg.fonttype": "path",
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in this style inside the context."""
    with matplotlib.rc_context(SETTINGS):
        yield


def looks(optimizers: Sequence[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Return line styles by optimizer's name: a colour a kind, dashes for settings within it.

    Args:
        optimizers: names and kinds in order.
    """
    styles: dict[str, dict[str, str]] = {}
    used: dict[str, int] = {}
    for name, kind in optimizers:
        number = used.setdefault(kind, 0)
        used[kind] += 1
        styles[name] = {
            "color": COLORS.get(kind, GREY),
            "linestyle": DASHES[number % len(DASHES)],
            "marker": MARKERS.get(kind, "x"),
        }
    return styles


def save_png(figure: Figure, file: Path) -> None:
    """Write a picture for print, on white."""
    figure.savefig(file, dpi=200, facecolor="white")
    with Image.open(file) as picture:
        # A third of the size, and no difference to the eye.
        small = picture.convert("RGB").quantize(256)
    small.save(file, optimize=True)
    # Laid out now: doing it again for the page would take as long and change nothing.
    figure.set_layout_engine("none")


def inline_svg(figure: Figure, name: str) -> str:
    """Return a picture as SVG for a page: transparent, its ink the colour of the page's text.

    Args:
        figure: drawn in this style.
        name: a word that makes its identifiers unique in the page.
    """
    with matplotlib.rc_context({"svg.hashsalt": name}):
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r' id="', f' id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    # The page sets the width; the view box keeps the shape.
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)


def png_uri(file: Path) -> str:
    """Return a PNG as a data address."""
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
