"""Do the metrics order known faults as they must?"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from benchmarks.metrics.distortions import series
from benchmarks.metrics.evaluate import evaluate
from benchmarks.metrics.formulas import METRICS
from benchmarks.metrics.reference import Reference

REAL = "other half"
"""The set of real images that no statistic has seen."""

Row = dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What the self-test measured and what it found wrong.

    Attributes:
        rows: metrics of each set: the other half of the real images, then "fault strength".
        floors: what the held-out real images scored.
        complaints: a sentence for each expectation that was not met; none if all is well.
    """

    rows: dict[str, Row]
    floors: Row
    complaints: list[str]


def run_self_test(
    images: Tensor, labels: Tensor, *, n: int, which: tuple[str, ...], cache: Path | None = None
) -> Outcome:
    """Judge real and distorted images, one half of the real ones being the reference.

    Expected is that the other half scores as held-out images do; that every distance and the
    classifier score get worse with each step of noise, blur, missing classes and copies, as far as
    they can see them; and that the repetition check and the duplicates notice all copies.

    Args:
        images: [m, 3, 32, 32] uint8, real images in random order, m at least 4 n.
        labels: [m] class of each, 0..9; n images of one class must lie in the second half.
        n: images in a set.
        which: names of `METRICS`.
        cache: folder of the reference's statistics.

    Raises:
        ValueError: if there are too few images.
    """
    half = len(images) // 2
    if half < 2 * n:
        raise ValueError(f"n={n} needs {4 * n} real images, got {len(images)}.")
    held_out = images[half + n :]
    reference = Reference(images[:half], n=n, name="half", held_out=held_out, cache=cache)
    real = evaluate(images[half : half + n], reference, which)
    rows = {REAL: real["metrics"]}
    complaints = list(_unlike_real(rows[REAL], real["floors"]))
    for fault in series(images[half:], labels[half:], n):
        chain = [REAL]
        for strength in fault.strengths:
            chain.append(f"{fault.name} {strength:g}")
            rows[chain[-1]] = evaluate(fault.make(strength), reference, which)["metrics"]
        complaints += _out_of_order(rows, chain, which, fault.blind)
        if fault.name.startswith("copies"):
            complaints += _unnoticed(rows, chain[1:])
    return Outcome(rows, real["floors"], complaints)


def _unlike_real(row: Row, floors: Row) -> Iterator[str]:
    for name, floor in floors.items():
        value = row[name]
        if name.startswith("fd_") and not value < 2 * floor:
            yield f"{name} of real images is {value:.4g}, must be near their floor, {floor:.4g}."
        if name.startswith(("cs_c", "coverage_")) and not abs(value - floor) < 0.1 * floor:
            yield f"{name} of real images is {value:.4g}, must be near {floor:.4g}."
        if name.startswith("repetition_") and not value < 0.05:
            yield f"{name} of real images is {value:.4g}, must be near 0.01."


def _out_of_order(
    rows: dict[str, Row], chain: list[str], which: tuple[str, ...], blind: tuple[str, ...]
) -> Iterator[str]:
    for name in which:
        if not name.startswith(("fd_", "cs_")) or name.startswith(blind or "-"):
            continue
        sign = 1 if METRICS[name].better == "low" else -1
        for weaker, stronger in pairwise(chain):
            if not sign * rows[weaker][name] < sign * rows[stronger][name]:
                yield (
                    f"{name} finds {stronger!r} ({rows[stronger][name]:.4g}) no worse than "
                    f"{weaker!r} ({rows[weaker][name]:.4g})."
                )


def _unnoticed(rows: dict[str, Row], copies: list[str]) -> Iterator[str]:
    for label in copies:
        for name, value in rows[label].items():
            at_least = {"repetition": 0.9, "duplicates": 0.4}.get(name.split("_")[0])
            if at_least is not None and not value >= at_least:
                yield f"{name} of {label!r} is {value:.4g}, must be at least {at_least}."
