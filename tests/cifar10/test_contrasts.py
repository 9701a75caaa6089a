"""Contrasts are paired by seed, and their statistics are those of the formulas."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cifar10.contrasts import contrast, expected_best, holm
from benchmarks.cifar10.protocol import load_protocol
from benchmarks.cifar10.stored import Result, endpoints

METRIC, OTHER = "fd_cifar10net_v1", "fd_effnetlite0_r96_p320"


def result(optimizer, seed, distances, state="finished"):
    rows = [
        {
            "generator": "ema",
            "final": False,
            "metrics": {METRIC: value, OTHER: 100 * value},
            "ceilings": {METRIC: 4.0, OTHER: 400.0},
        }
        for value in distances
    ]
    run = {"optimizer_name": optimizer, "loss": "wgan", "term_name": "none", "seed": seed}
    return Result(Path("none.json"), state, run, rows)


def test_endpoints_by_method_and_seed():
    results = [
        result("acgd", 0, [9.0, 1.0, 2.0, 4.0]),
        result("acgd", 3, [1.0, 1.0, 1.0, 1.0]),
        result("control", 0, [2.0, 3.0], state="diverged"),
        result("control", 3, []),
    ]
    found = endpoints(results, METRIC)
    assert found["acgd_wgan_none"] == pytest.approx({0: math.log(8) / 3, 3: 0.0})
    # As bad as noise, not as its last point.
    assert found["control_wgan_none"] == pytest.approx({0: math.log(4)})


def test_a_contrast_takes_the_seeds_that_both_have():
    found = {"a": {0: 1.0, 1: 2.0, 2: 3.0, 5: 0.0}, "b": {0: 2.0, 1: 2.5, 2: 5.0, 4: 9.0}}
    made = contrast(found, "a", "b")
    assert made.seeds == (0, 1, 2)
    assert made.differences == (-1.0, -0.5, -2.0)
    assert made.mean == pytest.approx(-3.5 / 3)
    assert made.ratio == pytest.approx(math.exp(-3.5 / 3))
    # All signs flipped or none: 2 of 8.
    assert made.p_value == pytest.approx(2 / 8)
    assert made.low <= made.mean <= made.high < 0
    assert contrast(found, "a", "c") is None


def test_the_sign_flip_test_is_exact():
    differences = np.random.default_rng(0).normal(0.4, 1, 8)
    made = contrast(
        {"a": dict(enumerate(differences)), "b": dict.fromkeys(range(8), 0.0)}, "a", "b"
    )
    flips = [np.mean(differences * signs) for signs in itertools.product([1, -1], repeat=8)]
    extreme = np.abs(flips) >= abs(differences.mean()) - 1e-12
    assert made.p_value == pytest.approx(extreme.mean())


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_the_expected_best_of_k():
    values = np.random.default_rng(0).normal(size=6)
    found = expected_best(values)
    for k in range(1, 7):
        leasts = [min(chosen) for chosen in itertools.combinations(values, k)]
        assert found[k - 1] == pytest.approx(np.mean(leasts))


def test_contrasts_are_of_methods_that_are_run():
    protocol = load_protocol("contrasts")
    methods = {cell.method for cell in protocol.cells()}
    assert {name for pair in protocol.contrasts for name in pair} <= methods
