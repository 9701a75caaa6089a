"""The count of false alarms counts them."""

import json
import sys

import pytest
from wrong_derivatives import FUNCTIONS

from benchmarks import false_alarms
from benchmarks.false_alarms import NETWORKS, rectified_mlp, table, trial
from benchmarks.workloads import Play, Workload


def faulty(batch_size: int) -> Play:
    play = rectified_mlp(batch_size, width=4)
    fault = FUNCTIONS["factor"]
    return Play(play.min_player, play.max_player, play.draw, lambda batch: fault(play.loss(batch)))


@pytest.fixture
def small(monkeypatch):
    names = {
        "mlp": (Workload("sound", lambda n: rectified_mlp(n, width=4)), 8),
        "dcgan": (Workload("faulty", faulty), 8),
    }
    monkeypatch.setattr(false_alarms, "NETWORKS", names)
    return names


def test_alarms_are_counted(small):
    trials = {name: [trial(*small[name], seed) for seed in range(2)] for name in small}
    sound, alarming = table(trials).splitlines()[2:]
    assert sound.startswith("| sound | 8 | 2 | 0 | 0 | ")
    assert alarming.startswith("| faulty | 8 | 2 | 2 | 0 | 0e+00 |")
    assert trials["mlp"][0]["errors"] != trials["mlp"][1]["errors"]


def test_a_run_goes_on_from_where_it_was(small, monkeypatch, tmp_path, capsys):
    out = tmp_path / "result.json"
    done = []
    measured = false_alarms.trial
    monkeypatch.setattr(
        false_alarms, "trial", lambda *given: done.append(given[-1]) or measured(*given)
    )
    for seeds in ("1", "2"):
        options = ["--seeds", seeds, "--networks", "mlp", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["false_alarms", *options])
        false_alarms.main()
    assert done == [0, 1]
    assert len(json.loads(out.read_text())["trials"]["mlp"]) == 2
    assert "| sound | 8 | 2 | 0 |" in capsys.readouterr().out


def test_stored_runs_have_no_alarm():
    trials = json.loads(false_alarms.RESULT.read_text())["trials"]
    assert set(trials) == set(NETWORKS)
    assert all("alarm" not in entry for found in trials.values() for entry in found)
