"""The benchmark of penalties measures each route, and writes what it shows."""

import json

import pytest
import torch

from benchmarks import penalties as benchmark
from compopt.penalties import CATALOGUE


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    out = tmp_path_factory.mktemp("penalties")
    names = ["R1", "R2, attached", "WeightClipping"]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = ["--rounds", "1", "--batch-size", "2"]
    rows = benchmark.main([*sizes, "--out", str(out), "--only", *names])
    torch.set_num_threads(before)
    assert json.loads((out / "penalties.json").read_text())["rows"] == rows
    assert (out / "penalties.png").read_bytes().startswith(b"\x89PNG")
    return rows


@pytest.mark.slow
def test_each_term_has_every_figure_and_a_projection_no_route_in_the_loss(rows) -> None:
    assert list(rows) == ["none", "R1", "R2, attached", "WeightClipping"]
    for name, row in rows.items():
        for key in benchmark.COLUMNS:
            is_projection_or_none = name in ("none", "WeightClipping")
            assert (key in row) == (not (is_projection_or_none and key.startswith("inside")))
    assert rows["none"]["alone_relative"] == rows["none"]["beside_relative"] == 1.0


@pytest.mark.slow
def test_an_uncoupled_term_beside_the_loss_holds_less_than_in_it(rows) -> None:
    assert rows["none"]["beside_held_mb"] < rows["R1"]["inside_held_mb"]
    assert rows["R1"]["beside_held_mb"] < rows["R1"]["inside_held_mb"]
    # Clipping holds nothing.
    assert rows["WeightClipping"]["beside_held_mb"] == rows["none"]["beside_held_mb"]


def test_every_penalty_of_the_package_is_measured() -> None:
    measured = {type(term) for term in benchmark.TERMS.values()}
    assert set(CATALOGUE.values()) <= measured
