"""The benchmark of forms of losses trains each of them, and its stored runs are complete."""

import json
import sys
from pathlib import Path
from statistics import geometric_mean

import pytest
import torch
from torch import nn

from benchmarks import forms, plane
from benchmarks.forms import FORMS, SETTINGS, result_file, table, trial
from benchmarks.gpu_day.images import write_images

ROOT = Path(__file__).resolve().parent.parent
FIGURES = {"fd_cifar10net_v1": 2.5}
RUN = {"good": 0.5, "steps": 1, "products": 2.0}


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
    assert plane.score("ring", plane.draw("ring", 2000))["found"] == 8
    assert plane.score("ring", plane.draw("ring", 8000))["good"] > 0.99
    assert plane.score("ring", plane.draw("ring", 2000) * 0)["good"] == 0


def test_image_networks_train(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPOPT_DATA", str(write_images(tmp_path)))
    monkeypatch.setattr(forms, "small_images", forms.small_images.__wrapped__)
    monkeypatch.setattr("benchmarks.cifar10.judge.Judge.scores", lambda *_: {"metrics": FIGURES})
    seen = [trial("cifar16", "hinge", "pair", seed=seed, budget=5.0) for seed in (0, 0)]
    assert seen == [{"distance": 2.5, "steps": 2, "products": seen[0]["products"]}] * 2
    # A generator that has left the numbers.
    problem = forms.cifar16(0)
    nn.init.constant_(problem.generator.conv[0].weight, torch.inf)
    for _ in range(3):
        problem.after_step()
    assert problem.score() == {"distance": None}
    rows = table("cifar16", {"hinge": {"pair": [*seen, {**seen[0], "distance": None}]}})
    assert "| hinge | pair | 2.50, 2.50, diverged |  | 2 |" in rows


def test_a_run_goes_on_from_where_it_was(monkeypatch, tmp_path, capsys):
    out, done = tmp_path / "forms.json", []
    monkeypatch.setattr(
        forms,
        "trial",
        lambda *given: done.append(given[1:4]) or {**RUN, "modes": given[3]},
    )
    for seeds in ("1", "2"):
        options = ["--seeds", seeds, "--losses", "hinge", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["forms", *options])
        forms.main()
    assert done == [("hinge", form, seed) for seed in range(2) for form in ("zero-sum", "pair")]
    lines = table("ring", json.loads(out.read_text())["runs"]).splitlines()
    assert lines[2] == "| hinge | zero-sum | 0 1 | 0.5 | 50% | 1 | 2.0 |"
    monkeypatch.setattr(sys, "argv", ["forms", "--budget", "7", "--out", str(out)])
    with pytest.raises(SystemExit):
        forms.main()
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize("problem", SETTINGS)
def test_stored_runs_are_complete_and_shown(problem):
    stored, setting = json.loads(result_file(problem).read_text()), SETTINGS[problem]
    assert (stored["problem"], stored["budget"]) == (problem, setting.budget)
    for loss, form in FORMS:
        if loss in setting.losses:
            assert len(stored["runs"][loss][form]) >= setting.seeds
    assert "{{ forms_" + problem + " }}" in (ROOT / "docs" / "losses.md").read_text()


def test_the_page_says_what_the_images_gave():
    runs = json.loads(result_file("cifar16").read_text())["runs"]
    ratios = []
    for forms_of_loss in runs.values():
        zero_sum, pair = (
            [run["distance"] for run in forms_of_loss[form]] for form in ("zero-sum", "pair")
        )
        assert all(a < b for a, b in zip(zero_sum, pair, strict=True))
        ratios.append(geometric_mean(zero_sum) / geometric_mean(pair))
    first, second, third = (f"{ratio:.2f}" for ratio in ratios)
    page = " ".join((ROOT / "docs" / "losses.md").read_text().split())
    assert f"at {first}, {second} and {third} times the distance of the pair" in page
