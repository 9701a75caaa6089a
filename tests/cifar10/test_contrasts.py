"""Contrasts are paired by seed, and their statistics are those of the formulas."""

import itertools
import json
import math

import numpy as np
import pytest
from PIL import Image

from benchmarks.cifar10.__main__ import main
from benchmarks.cifar10.contrasts import contrast, endpoints, holm, load_results
from benchmarks.cifar10.protocol import load_protocol

METRIC, OTHER = "fd_cifar10net_v1", "fd_effnetlite0_r96_p320"


def result(optimizer, seed, distances, state="finished", loss="wgan"):
    rows = [
        {
            "generator": "ema",
            "final": False,
            "metrics": {METRIC: value, OTHER: 100 * value},
            "ceilings": {METRIC: 4.0, OTHER: 400.0},
        }
        for value in distances
    ]
    run = {"optimizer_name": optimizer, "loss": loss, "term_name": "none", "seed": seed}
    return {"state": state, "run": run, "evaluations": rows}


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


def test_the_command_writes_table_and_plot(tmp_path, capsys):
    for seed in range(4):
        for optimizer, value in (("acgd", 1.0 + seed / 10), ("control", 2.0)):
            file = tmp_path / f"{optimizer}_wgan_none_seed{seed}.json"
            file.write_text(json.dumps(result(optimizer, seed, [value] * 3)))
    assert len(load_results(tmp_path)) == 8
    assert main(["contrasts", "contrasts", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"| {METRIC} | acgd_wgan_none / control_wgan_none | 4 | 0.57 |" in printed
    table = json.loads((tmp_path / "contrasts.json").read_text())
    assert set(table) == {METRIC, OTHER}
    (row,) = table[METRIC]
    assert row["p_holm"] == row["p_value"] == pytest.approx(2 / 16)
    with Image.open(tmp_path / "forest.png") as picture:
        assert picture.size[0] > 500


def test_contrasts_are_of_methods_that_are_run():
    protocol = load_protocol("contrasts")
    methods = {cell.method for cell in protocol.cells()}
    assert {name for pair in protocol.contrasts for name in pair} <= methods
