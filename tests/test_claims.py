"""Experiments on the papers' claims measure what they say, and their page says what they found."""

import json

import pytest
import torch
from image_cases import random_images
from torch import nn

from benchmarks import plane
from benchmarks.claims import __main__ as command
from benchmarks.claims import images, page, planar
from benchmarks.claims.experiments import EXPERIMENTS


def test_the_committed_page_is_what_the_stored_results_give():
    """As after `python -m benchmarks.claims --page`."""
    assert page.PAGE.read_text() == page.page()


def test_scores_of_the_plane():
    torch.manual_seed(0)
    for data, places in plane.PLACES.items():
        found = plane.score(data, plane.draw(data, 4000))
        assert found["found"] == len(places)
        assert found["good"] > 0.99
        one = places[0].expand(100, 2)
        assert plane.score(data, one) == {"found": 1, "good": 1.0}
    steep = nn.Linear(2, 1)
    nn.init.constant_(steep.weight, 3.0)
    assert planar.slope(steep, "ring") == pytest.approx(18**0.5, rel=1e-5)


@pytest.mark.parametrize("terms", [[], ["dragan"], ["wgan-gp", "advas"]], ids=str)
def test_each_player_lowers_what_is_its_own(terms):
    """A critic's term does not reach the generator's step, nor the other way round."""
    setting = planar.Setting(loss="wasserstein", terms=terms, steps=40, sizes=(8,))
    found = planar.train(setting, 0)
    assert len(found["looks"]["step"]) == planar.LOOKS
    plain = planar.train(planar.Setting(loss="wasserstein", steps=40, sizes=(8,)), 0)
    assert (found["looks"]["slope"] == plain["looks"]["slope"]) is (terms == [])


def test_parallel_filters_and_variety_are_counted():
    training = images.start(random_images(64), "wgan", "none", 0, "adam-simultaneous")
    layer = training.critic.layers[2]
    before = images.parallel_pairs(training.critic)
    layer.weight.data[1] = layer.weight.data[0]
    assert images.parallel_pairs(training.critic) == before + 1
    some = images.variety(training)
    training.generator.conv[-2].weight.data.zero_()
    assert images.variety(training) < 1e-6 < some


def test_runs_are_stored_as_they_come_and_not_made_again(tmp_path, monkeypatch):
    made = []
    runs = [(name, lambda name=name: made.append(name) or {"found": 1}) for name in "ab"]
    monkeypatch.setitem(EXPERIMENTS, "planar", lambda: iter(runs))
    monkeypatch.setattr(command, "PAGE", tmp_path / "claims.md")
    for _ in range(2):
        command.main(["--only", "planar", "--out", str(tmp_path)])
    assert made == ["a", "b"]
    stored = json.loads((tmp_path / "planar.json").read_text())["runs"]
    assert stored == {"a": {"found": 1}, "b": {"found": 1}}


def test_what_samples_are_called_alike():
    """By the end of a run, not by the noise that an untrained generator begins with."""
    assert not page.is_alike({"variety": [0.1, 0.05, 0.4, 0.5, 0.6]})
    assert page.is_alike({"variety": [0.6, 0.7, 0.1, 0.1, 0.2]})
