"""Published figures, and whether ours were made under conditions like theirs."""

from dataclasses import dataclass

from benchmarks.cifar10.report.cells import Cells

STEPS, NETWORK = 468_500, "dcgan"
"""Of the published runs, batch 64, at full width."""


@dataclass(frozen=True)
class Published:
    """A figure of others.

    Attributes:
        kind, loss, term: the cell; the kind begins as our optimizers' kinds do.
        metric: "IS" or "FID".
        value: as given.
        source: where from, and how sure it is.
    """

    kind: str
    loss: str
    term: str
    metric: str
    value: str
    source: str


LOG = "log beside the code of Schäfer, Zheng and Anandkumar (2020), mean of the last 20"
CURVE = "read off the curves of Schäfer, Zheng and Anandkumar (2020)"

PUBLISHED = (
    Published("acgd", "wgan", "none", "IS", "5.36 ± 0.07", LOG),
    Published("acgd", "wgan", "none", "FID", "22 to 23", CURVE),
    Published("adam", "wgan", "wgan-gp", "IS", "4.70", f"{LOG}; five critic steps"),
    Published("adam", "wgan", "wgan-gp", "FID", "31 to 33", CURVE),
    Published("adam", "wgan", "spectral-norm", "IS", "4.9 to 5.3", CURVE),
    Published("adam", "wgan", "spectral-norm", "FID", "24 to 28", CURVE),
)


@dataclass(frozen=True)
class Beside:
    """A published figure with ours, or the reason why there is none."""

    published: Published
    ours: str
    why_not: str


def beside(cells: Cells) -> list[Beside]:
    """Return each published figure with the figure of ours that it may be compared with."""
    rows = []
    for figure in PUBLISHED:
        ours, reasons = [], set()
        for (optimizer, loss, term), cell in cells.by_key.items():
            run = cell.runs[0]
            if not run.kind.startswith(figure.kind) or (loss, term) != (figure.loss, figure.term):
                continue
            network, steps = run.config["network"], run.config["steps"]
            names = [m for m in cells.metrics if m.startswith(f"{figure.metric}-50k")]
            names = [m for m in names if not m.endswith("_std")]
            if network["kind"] != NETWORK or network["width"] != 1:
                reasons.add(f"our network is {network['kind']} at width {network['width']:g}")
            elif steps < STEPS:
                reasons.add(f"ours has {steps:,} steps of {STEPS:,}")
            elif not names or not (value := cell.value(names[0])):
                reasons.add(f"we have no {figure.metric} of 50,000 images")
            else:
                ours.append(f"{optimizer}: {value} ({names[0]})")
        if not ours and not reasons:
            reasons.add("we have no such cell")
        rows.append(Beside(figure, "; ".join(ours), "; ".join(sorted(reasons)) if not ours else ""))
    return rows
