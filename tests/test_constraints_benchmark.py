"""The comparison on constrained problems knows the solutions; its stored rows are complete."""

import json
import math

import pytest
import torch

from benchmarks import constraints
from benchmarks.constraints import METHODS, PROBLEMS, RESULT


def test_solutions_are_those_found_by_hand_and_mirrored_multipliers_come_there():
    problem = constraints.by_hand()
    right = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64)
    assert torch.allclose(constraints.solution(problem), right, atol=1e-6)
    x, multipliers = constraints.mirrored(problem, 0.5, 0.5, 200)
    assert torch.allclose(x, right, atol=1e-6)
    assert torch.allclose(multipliers, torch.tensor([4 / 3, 0.0], dtype=torch.float64), atol=1e-6)


def test_it_runs(monkeypatch, tmp_path, capsys):
    """Without Cooper, which is no dependency."""
    monkeypatch.delitem(METHODS, "Cooper, simultaneous")
    monkeypatch.setattr(constraints, "RATES", (0.5,))
    out = tmp_path / "constraints.json"
    monkeypatch.setattr(constraints, "COURSE", (1, 2))
    constraints.main(["--new", "--steps", "3", "--out", str(out)])
    assert len(json.loads(out.read_text())["rows"]) == len(PROBLEMS) * len(METHODS)
    assert "| 2 | " in capsys.readouterr().out


def test_stored_rows_are_complete():
    stored = json.loads(RESULT.read_text())
    steps = {row["steps"] for row in stored["rows"]}
    found = {(row["problem"], row["method"], row["steps"]) for row in stored["rows"]}
    assert found == {(p, m, s) for p in PROBLEMS for m in METHODS for s in steps}
    assert all(math.isfinite(row["excess"]) for row in stored["rows"])
    assert stored["course"][-1]["excess"] == pytest.approx(0, abs=1e-6)
