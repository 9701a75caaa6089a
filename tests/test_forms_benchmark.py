"""The benchmark of forms of losses trains each of them, and its stored runs are complete."""

import json
import sys

import pytest

from benchmarks import forms
from benchmarks.forms import FORMS, RESULT, table, trial


@pytest.mark.parametrize(("loss", "form"), FORMS)
def test_every_form_trains(loss, form):
    run = trial("ring", loss, form, seed=0, budget=20.0)
    assert set(run) == {"modes", "good", "steps", "products"}
    # A pair has two backward passes; at least one iteration is made.
    cost = 1 + (form == "pair") + run["products"] / 2
    assert run["products"] >= 2
    assert (run["steps"] - 1) * cost < 20 <= (run["steps"] + 1) * cost
    assert trial("ring", loss, form, seed=0, budget=20.0) == run


def test_the_score_counts_modes():
    problem = forms.ring()
    assert problem.score(problem.draw(2000))["modes"] == 8
    assert problem.score(problem.draw(8000))["good"] > 0.99
    assert problem.score(problem.draw(2000) * 0)["good"] == 0


def test_a_run_goes_on_from_where_it_was(monkeypatch, tmp_path, capsys):
    out, done = tmp_path / "forms.json", []
    monkeypatch.setattr(
        forms,
        "trial",
        lambda *given: (
            done.append(given[1:4]) or {"modes": given[3], "good": 0.5, "steps": 1, "products": 2.0}
        ),
    )
    for seeds in ("1", "2"):
        options = ["--seeds", seeds, "--losses", "hinge", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["forms", *options])
        forms.main()
    assert done == [("hinge", form, seed) for seed in range(2) for form in ("zero-sum", "pair")]
    lines = table(json.loads(out.read_text())["runs"]).splitlines()
    assert lines[2] == "| hinge | zero-sum | 0 1 | 0.5 | 50% | 1 | 2.0 |"
    monkeypatch.setattr(sys, "argv", ["forms", "--budget", "7", "--out", str(out)])
    with pytest.raises(SystemExit):
        forms.main()
    assert "other settings" in capsys.readouterr().err


def test_stored_runs_are_complete():
    stored = json.loads(RESULT.read_text())
    assert stored["budget"] == forms.BUDGET
    for loss, form in FORMS:
        assert len(stored["runs"][loss][form]) >= 5
