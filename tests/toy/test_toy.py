"""The toy experiments: in small, resumed, and the published claim that must hold."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.toy import __main__ as toy
from benchmarks.toy.methods import CONSTANT, LARGER, MIXTURE, OTHERS, SCALAR, Method
from benchmarks.toy.runs import covariance_run, scalar_run
from benchmarks.toy.statements import (
    covers_both,
    has_converged,
    larger_statements,
    mixture_statements,
    scalar_statements,
)
from benchmarks.toy.store import Store
from compopt import games

BY_NAME = {method.name: method for method in (*SCALAR, *MIXTURE)}


PARTS = ["--quick", "--parts", "samples", "mixture"]


@pytest.fixture(scope="module")
def some_parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("toy")
    return out, toy.main([*PARTS, "--out", str(out)])


@pytest.mark.slow
def test_parts_run_by_themselves(some_parts) -> None:
    out, said = some_parts
    assert list(said) == ["samples", "mixture"]
    assert said == json.loads((out / "statements.json").read_text())
    for name in ("samples", "mixture"):
        assert (out / f"{name}.png").stat().st_size > 5000
    assert len(Store(out / "mixture.json").cells) == 2 * len(MIXTURE)


@pytest.mark.slow
def test_quick_run_has_every_part(tmp_path) -> None:
    out, said = tmp_path, toy.main(["--quick", "--out", str(tmp_path)])
    assert list(said) == ["scalar", "covariance", "samples", "mixture"]
    assert said == json.loads((out / "statements.json").read_text())
    covariances = [f"covariance-{size}" for size in (20, 40, 60)]
    for name in ("trajectories", "divergence", *covariances, "samples", "mixture"):
        assert (out / f"{name}.png").stat().st_size > 5000
    assert len(Store(out / "scalar.json").cells) == 3 * 3 * len(SCALAR)
    methods = (*CONSTANT, *OTHERS, *LARGER, *LARGER)
    # And a further draw, with CGD and SGA.
    assert len(Store(out / "covariance.json").cells) == 2 * len(methods) + 2
    assert len(Store(out / "samples.json").cells) == 2 * 2 * 5
    assert len(Store(out / "mixture.json").cells) == 2 * len(MIXTURE)


@pytest.mark.slow
def test_what_has_been_run_is_kept(some_parts, monkeypatch) -> None:
    out, said = some_parts

    def refuse(*_: object) -> None:
        raise AssertionError("ran again")

    for name in ("scalar_run", "covariance_run", "mixture_run"):
        monkeypatch.setattr(toy, name, refuse)
    assert toy.main([*PARTS, "--out", str(out)]) == said


def test_an_interrupted_part_keeps_its_cells(tmp_path) -> None:
    store = Store(tmp_path / "cells.json")
    calls = []

    def cell(name: str) -> str:
        calls.append(name)
        if name == "b" and len(calls) == 2:
            raise KeyboardInterrupt
        return name

    cells = [(name, lambda name=name: cell(name)) for name in "abc"]
    with pytest.raises(KeyboardInterrupt):
        store.fill("test", cells)
    assert Store(tmp_path / "cells.json").fill("test", cells) == {"a": "a", "b": "b", "c": "c"}
    assert calls == ["a", "b", "b", "c"]


@pytest.mark.slow
def test_results_of_other_settings_are_not_mixed(some_parts, capsys) -> None:
    with pytest.raises(SystemExit):
        toy.main(["--out", str(some_parts[0])])
    assert "other settings" in capsys.readouterr().err


@pytest.mark.slow
def test_scalar_statements_are_computed_from_the_runs() -> None:
    """All agree on the real runs, and each turns around when a run it names does."""
    cells = {
        f"{name} {alpha} {method.name}": scalar_run(method, make(alpha))
        for name, make in toy.GAMES.items()
        for alpha in (1, 3, 6)
        for method in CONSTANT
    }
    said = list(scalar_statements(cells))
    assert len(said) == 7
    assert all(statement.agrees for statement in said)
    for index, statement in enumerate(said):
        game, alpha = statement.experiment.split(", alpha = ")
        key = f"{game} {alpha} CGD" if f"{game}" != "convex" or alpha != "1" else "convex 1 SGA"
        turned = {**cells}
        start = [0.5, 0.5]
        turned[key] = {"path": [start, [5.0, 5.0] if has_converged(cells[key]) else [0.0, 0.0]]}
        assert [s.agrees for s in scalar_statements(turned)][index] is False


def test_paths_are_those_of_the_closed_form() -> None:
    path = scalar_run(BY_NAME["CGD"], games.bilinear(3))["path"]
    assert len(path) == 51
    assert math.hypot(*path[-1]) == pytest.approx(math.sqrt(0.5) * 1.36**-25, rel=1e-5)


def test_costs_are_counted_as_published() -> None:
    costs = {"CGD": 4, "OGDA": 2, "SGA": 4, "LCGD": 4, "ConOpt": 6}
    assert {name: BY_NAME[name].passes for name in costs} == costs

    class Report:
        num_iter = 7

    class Optimizer:
        last_step = Report()

    assert Method("", lambda: None, 4).cost(Optimizer()) == 18


def test_both_modes_need_a_fifth_each() -> None:
    assert covers_both({"shares": [[0, 0], [0.5, 0.2], [0.5, 0.2], [0.5, 0.2]]})
    assert not covers_both({"shares": [[0.5, 0.5], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]})
    assert not covers_both({"shares": []})


def test_a_generator_that_hops_does_not_cover_both_modes() -> None:
    assert not covers_both({"shares": [[0.9, 0.0], [0.0, 0.9], [0.9, 0.0]]})
    assert not covers_both({"shares": [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.1, 0.8]]})


def test_larger_statements_are_computed_from_the_runs() -> None:
    good = {"errors": [10.0, 1.0, 2e-7], "diverged": False}
    bad = {"errors": [10.0, 5.0, 4.0], "diverged": False}
    lost = {"errors": [10.0, 1e-9], "diverged": True}
    cells = {
        f"d=60 exact {method.name} lr={lr}": good if method.name == "CGD" else lost
        for method in LARGER
        for lr in ("0.005", "0.4")
    }
    cells["d=60 exact OGDA lr=0.005"] = {"errors": [10.0, 0.9], "diverged": False}
    said = list(larger_statements(cells, 60, (0.005, 0.4)))
    assert [statement.agrees for statement in said] == [True, True]
    for key, cell, expected in (
        ("CGD lr=0.005", bad, [False, True]),
        ("CGD lr=0.4", lost, [False, False]),
        ("CGD lr=0.4", {"errors": [10.0, 1e-9], "diverged": False}, [True, False]),
        ("OGDA lr=0.005", bad, [False, True]),
        ("OGDA lr=0.4", good, [False, True]),
        ("SGA lr=0.005", good, [False, True]),
    ):
        turned = {**cells, f"d=60 exact {key}": cell}
        assert [s.agrees for s in larger_statements(turned, 60, (0.005, 0.4))] == expected, key


def test_mixture_statements_are_computed_from_the_runs() -> None:
    good, bad = {"shares": [[0.5, 0.5]] * 3}, {"shares": [[0.9, 0.0]] * 3}
    cells = {
        f"{method.name} lr={lr} seed={seed}": good if method.name == "ACGD" else bad
        for method in MIXTURE
        for lr in ("0.1", "0.4")
        for seed in (0, 1)
    }
    said = list(mixture_statements(cells))
    assert len(said) == 4
    assert all(statement.agrees for statement in said)
    assert said[0].found == "both modes: 2/2 at 0.1, 2/2 at 0.4"
    for index, name in enumerate(("ACGD", "OGDA with RMSProp", "SGA", "ConOpt")):
        key = f"{name} lr=0.4 seed=1"
        turned = {**cells, key: bad if name == "ACGD" else good}
        agrees = [statement.agrees for statement in mixture_statements(turned)]
        assert agrees == [i != index for i in range(4)]


@pytest.mark.slow
def test_cgd_estimates_a_covariance_where_others_diverge() -> None:
    """d = 20 and eta = 0.4 in float64, within 100,000 forward-pass equivalents."""
    ends = {
        name: covariance_run(BY_NAME[name], 0.4, 100_000, 20, None)
        for name in ("CGD", "OGDA", "ConOpt")
    }
    assert ends["CGD"]["passes"][-1] <= 100_100
    assert min(ends["CGD"]["errors"]) < 1e-10
    for name in ("OGDA", "ConOpt"):
        assert min(ends[name]["errors"]) > 1
        assert ends[name]["diverged"]
