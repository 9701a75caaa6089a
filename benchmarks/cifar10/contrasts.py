"""Paired contrasts of methods: differences of endpoints by seed, with intervals and tests."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

RESAMPLES = 9999
CONFIDENCE = 0.95
LEVEL = 0.05
"""Of Holm's correction over the contrasts of a distance."""


@dataclass(frozen=True)
class Contrast:
    """Comparison of two methods over their common seeds.

    Attributes:
        one: the first method.
        other: the second.
        seeds: common seeds, in order.
        differences: differences of log distances by seed; negative if the first method is better.
        mean: mean of the differences.
        low: lower end of the bootstrap interval of the mean (BCa, 95 %).
        high: upper end of the interval.
        p_value: p-value of the two-sided sign-flip test, exact for few seeds.
    """

    one: str
    other: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    mean: float
    low: float
    high: float
    p_value: float

    @property
    def ratio(self) -> float:
        """Geometric mean of the first method's distance over the second's."""
        return math.exp(self.mean)

    @property
    def verdict(self) -> str:
        """Result according to the interval: "lower", "higher", or "level"."""
        return "lower" if self.high < 0 else "higher" if self.low > 0 else "level"


def contrast(found: dict[str, dict[int, float]], one: str, other: str) -> Contrast | None:
    """Compare two methods; None if they have fewer than two seeds in common."""
    seeds = sorted(found.get(one, {}).keys() & found.get(other, {}).keys())
    if len(seeds) < 2:
        return None
    differences = np.array([found[one][seed] - found[other][seed] for seed in seeds])
    # For one sample, type "samples" flips signs; it tests all combinations if there are few.
    flips = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES
    )
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, rng=0
    ).confidence_interval
    return Contrast(
        one,
        other,
        tuple(seeds),
        tuple(differences.tolist()),
        float(differences.mean()),
        float(interval.low),
        float(interval.high),
        float(flips.pvalue),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests by Holm's method."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def expected_best(values: Sequence[float]) -> np.ndarray:
    """Return the expected minimum of k values drawn without replacement, for each k."""
    ordered, n = np.sort(values), len(values)
    rank = np.arange(n)
    # The value of a rank is the minimum if the other k - 1 are drawn from the higher ranks.
    return np.array(
        [special.comb(n - 1 - rank, k - 1) @ ordered / special.comb(n, k) for k in range(1, n + 1)]
    )
