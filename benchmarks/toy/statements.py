"""What the paper states, beside what the runs show."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

Cells = dict[str, Any]


@dataclass(frozen=True)
class Statement:
    """A published statement with what was found.

    Attributes:
        experiment: which part.
        published: the statement.
        found: the numbers that decide.
        agrees: whether they say the same.
    """

    experiment: str
    published: str
    found: str
    agrees: bool

    def row(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def _shown(error: float) -> str:
    return f"{error:.1e}" if math.isfinite(error) else "diverges"


def last_radius(cell: Any) -> float:
    """Return the last distance from the origin, relative to the first."""
    first, last = (math.hypot(*cell["path"][index]) for index in (0, -1))
    return last / first


def has_converged(cell: Any) -> bool:
    """Return whether a scalar run ended at less than half the distance that it began at."""
    return last_radius(cell) < 0.5


# The optimizers of the paper's comparison.
PAPER = ("GDA", "OGDA", "ConOpt", "SGA", "LCGD", "CGD")


def scalar_statements(cells: Cells) -> Iterable[Statement]:
    """Yield the statements on the scalar games."""

    def check(game: str, alpha: int, text: str, expected: dict[str, bool]) -> Statement:
        radii = {name: last_radius(cells[f"{game} {alpha} {name}"]) for name in expected}
        agrees = all(
            has_converged(cells[f"{game} {alpha} {name}"]) == wanted
            for name, wanted in expected.items()
        )
        found = ", ".join(f"{name} {radius:.2g}" for name, radius in radii.items())
        return Statement(f"{game}, alpha = {alpha}", text, f"relative distance: {found}", agrees)

    everyone = dict.fromkeys(PAPER, True)
    yield check("bilinear", 1, "All but GDA converge.", {**everyone, "GDA": False})
    yield check(
        "bilinear",
        3,
        "OGDA, ConOpt and SGA fail, CGD converges.",
        {"OGDA": False, "ConOpt": False, "SGA": False, "CGD": True},
    )
    yield check("bilinear", 6, "Only CGD converges.", {**dict.fromkeys(PAPER, False), "CGD": True})
    yield check("convex", 1, "All converge.", everyone)
    yield check(
        "convex", 3, "OGDA and ConOpt diverge.", {**everyone, "OGDA": False, "ConOpt": False}
    )
    yield check("convex", 6, "All diverge, CGD too.", dict.fromkeys(PAPER, False))
    yield check(
        "concave",
        1,
        "Nobody should converge; ConOpt does, spuriously.",
        {**dict.fromkeys(PAPER, False), "ConOpt": True},
    )


def covariance_statements(
    cells: Cells, size: int, rates: Sequence[float], draws: Cells
) -> Iterable[Statement]:
    """Yield the statements on covariance estimation, the deterministic ones for d = 20.

    The paper does not say which covariance its figures have. ``draws`` has others: errors fall
    exponentially, at a rate that goes with the square of the smallest singular value.
    """

    def best(name: str, lr: float, samples: str = "exact") -> float:
        cell = cells[f"d={size} {samples} {name} lr={lr:g}"]
        return math.inf if cell["diverged"] else min(cell["errors"])

    where = f"covariance, d = {size}"
    largest = max(rates)
    cgd = best("CGD", largest)
    others = {name: best(name, largest) for name in ("OGDA", "ConOpt")}
    text = "CGD at the largest step size reaches 1e-10 within the budget."
    yield Statement(where, text, f"CGD {_shown(cgd)} at eta = {largest:g}", cgd <= 1e-10)
    text = "OGDA and consensus optimization at that step size do not."
    found = ", ".join(f"{name} {_shown(value)}" for name, value in others.items())
    yield Statement(where, text, found, min(others.values()) > 1e-10)

    def least(cell: Any, until: float = math.inf) -> float:
        return min(e for p, e in zip(cell["passes"], cell["errors"], strict=True) if p <= until)

    def others_drawn(name: str, until: float = math.inf) -> str:
        found = (f"{least(c, until):.1e}" for key, c in draws.items() if f" {name} " in key)
        return f"; with other covariances {', '.join(found)}"

    at_75 = least(cells[f"d={size} exact CGD lr={largest:g}"], 75_000)
    text = "CGD at eta = 0.4 is at about 1e-14 after 75,000 passes (figure; within a factor 10)."
    yield Statement(where, text, f"{at_75:.1e}{others_drawn('CGD', 75_000)}", at_75 <= 1e-13)
    sga = {lr: best("SGA", lr) for lr in rates}
    rate = min(sga, key=lambda lr: sga[lr])
    text = "The best SGA, at eta = 0.005, ends at about 4e-12 (figure; within a factor 10)."
    agrees = rate == 0.005 and 4e-13 <= sga[rate] <= 4e-11
    found = f"{_shown(sga[rate])} at eta = {rate:g}{others_drawn('SGA')}"
    yield Statement(where, text, found, agrees)
    ogda = {lr: best("OGDA", lr) for lr in rates}
    text = "OGDA converges for eta <= 0.025 only (here: to less than a tenth of its start)."
    start = cells[f"d={size} exact OGDA lr={largest:g}"]["errors"][0]
    agrees = all((value < 0.1 * start) == (lr <= 0.025) for lr, value in ogda.items())
    found = ", ".join(f"{_shown(value)} at {lr:g}" for lr, value in ogda.items())
    yield Statement(where, text, found, agrees)


def larger_statements(cells: Cells, size: int, rates: Sequence[float]) -> Iterable[Statement]:
    """Yield the statements on covariance estimation for d = 60, at the ends of the step sizes."""
    where = f"covariance, d = {size}"
    ends: dict[str, dict[float, float]] = {}
    for key, cell in cells.items():
        _, _, name, lr = key.split(" ")
        final = math.inf if cell["diverged"] else cell["errors"][-1]
        ends.setdefault(name, {})[float(lr[3:])] = final / cell["errors"][0]
    text = "Only CGD, at every step size, and OGDA at 0.005 converge (here: to less than a tenth)."
    agrees = all(
        (end < 0.1) == (name == "CGD" or (name == "OGDA" and lr == 0.005))
        for name, by_rate in ends.items()
        for lr, end in by_rate.items()
    )
    found = ", ".join(
        f"{name} {_shown(end)} at {lr:g}"
        for name, by_rate in ends.items()
        for lr, end in by_rate.items()
    )
    yield Statement(where, text, f"relative to the start: {found}", agrees)
    cell = cells[f"d={size} exact CGD lr={max(rates):g}"]
    least = math.inf if cell["diverged"] else min(cell["errors"])
    text = "CGD at eta = 0.4 ends at about 1e-7 (figure; within a factor 10)."
    yield Statement(where, text, _shown(least), 1e-8 <= least <= 1e-6)


def stochastic_statements(cells: Cells, size: int, rates: Sequence[float]) -> Iterable[Statement]:
    """Yield the statements on covariance estimation from samples."""
    where = f"covariance, d = {size}, samples"
    keys = [key for key in cells if key.startswith(f"d={size} n=")]
    diverged: dict[str, int] = {}
    for key in keys:
        name = key.split(" ")[2]
        diverged[name] = diverged.get(name, 0) + cells[key]["diverged"]
    text = "CGD is the only one that never diverges."
    agrees = diverged["CGD"] == 0 and all(
        count > 0 for name, count in diverged.items() if name != "CGD"
    )
    found = ", ".join(f"{name} {count}" for name, count in diverged.items())
    yield Statement(where, text, f"diverged runs: {found}", agrees)

    most = max(int(key.split(" ")[1][2:]) for key in keys)

    def half_time(name: str) -> float:
        cell = cells[f"d={size} n={most} {name} lr={min(rates):g}"]
        pairs = zip(cell["passes"], cell["errors"], strict=True)
        return next((p for p, e in pairs if e < cell["errors"][0] / 2), math.inf)

    times = {name: half_time(name) for name in diverged}
    text = "The others start faster (here: at the smallest step size and with most samples)."
    found = ", ".join(f"{name} {value:g}" for name, value in times.items())
    agrees = all(value < times["CGD"] for name, value in times.items() if name != "CGD")
    yield Statement(where, text, f"passes to half the error: {found}", agrees)
    floors = {
        samples: min(
            min(cells[key]["errors"])
            for key in keys
            if key.split(" ")[1] == f"n={samples}" and not cells[key]["diverged"]
        )
        for samples in sorted({int(key.split(" ")[1][2:]) for key in keys})
    }
    text = "The noise of the samples sets the floor: more samples end lower."
    values = list(floors.values())
    agrees = all(low > high for low, high in pairwise(values))
    found = ", ".join(f"{value:.1e} with {count}" for count, value in floors.items())
    yield Statement(where, text, found, agrees)


def covers_both(cell: Any) -> bool:
    """Return whether each mode has a fifth of the points or more at every one of three evaluations.

    They are the last ones. On an average of them a generator that hops from mode to mode would pass
    for one that covers both.
    """
    last = cell["shares"][-3:]
    return bool(last) and all(min(share) >= 0.2 for share in last)


def mixture_statements(cells: Cells) -> Iterable[Statement]:
    """Yield the statements on the two-Gaussian GAN."""
    groups: dict[str, dict[str, list[bool]]] = {}
    for key, cell in cells.items():
        name, lr = key.split(" lr=")
        groups.setdefault(name, {}).setdefault(lr.split(" ")[0], []).append(covers_both(cell))

    def rates(name: str) -> str:
        return ", ".join(f"{sum(v)}/{len(v)} at {lr}" for lr, v in groups[name].items())

    where = "two-Gaussian GAN"
    text = "CGD (with RMSProp: ACGD) splits the mass at every step size."
    agrees = all(all(values) for values in groups["ACGD"].values())
    yield Statement(where, text, f"both modes: {rates('ACGD')}", agrees)
    for name in ("OGDA with RMSProp", "SGA", "ConOpt"):
        agrees = not any(any(values) for values in groups[name].values())
        text = f"{name.split(' ')[0]} fails at every step size."
        yield Statement(where, text, f"both modes: {rates(name)}", agrees)
