"""Samples are judged by the metrics asked for, at the numbers asked for."""

import sys
import types

import pytest
import torch
from image_cases import random_images

from benchmarks.cifar10.data import Images
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.judge import Judge
from benchmarks.cifar10.protocol import run_config
from benchmarks.cifar10.run import Run


@pytest.fixture
def metrics(monkeypatch):
    """Stand-in metrics that write down what they are called with."""
    made, judged = [], []

    class Reference:
        def __init__(self, images, **options):
            made.append((images, options))
            self.n = options["n"]

    def evaluate(samples, reference, which):
        assert len(samples) == reference.n
        judged.append((samples, which))
        return {"n": reference.n, "metrics": {name: float(len(judged)) for name in which}}

    module = types.ModuleType("benchmarks.metrics")
    module.METRICS = {"near": None, "far": None}
    module.Reference, module.evaluate = Reference, evaluate
    monkeypatch.setitem(sys.modules, "benchmarks.metrics", module)
    module.made, module.judged = made, judged
    return module


def test_one_reference_serves_each_number_of_samples(images, metrics):
    judge = Judge(images)
    for count in (12, 12, 20):
        judge.scores(random_images(count), ["near"])
    assert [options["n"] for _, options in metrics.made] == [12, 20]
    train, options = metrics.made[0]
    assert train is images.train
    assert options["held_out"] is images.test
    assert options["name"] == "train"


def test_images_of_the_users_own_have_another_name(images, metrics):
    Judge(Images(images.train, None, "image folder")).scores(random_images(12), ["near"])
    assert metrics.made[0][1]["name"] == "image folder"


def test_without_names_nothing_is_judged(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "benchmarks.metrics", None)
    judge = Judge(images)
    judge.check(5, [])
    assert judge.scores(random_images(3), []) == {}


@pytest.mark.parametrize(
    ("count", "names", "message"),
    [
        (12, ["near", "fid"], r"no metrics \['fid'\]; known are \['far', 'near'\]"),
        (10, ["near"], r"must be in 11\.\.48.*got 10"),
        (49, ["near"], r"must be in 11\.\.48.*got 49"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_training(images, metrics, count, names, message):
    with pytest.raises(BenchmarkError, match=message):
        Judge(images).check(count, names)


def test_a_run_judges_both_generators_and_the_last_step_twice(tiny, images, metrics, tmp_path):
    evaluation = {"at": [4], "images": 12, "final_images": 20, "norm_images": 16}
    evaluation |= {"metrics": ["near"], "final_metrics": ["near", "far"], "ema_images": 6}
    config = run_config(tiny.as_dict() | {"evaluation": evaluation})
    run = Run(config, tmp_path / "run", images)
    assert run.complete(lambda: False) == "finished"
    assert [(len(samples), which) for samples, which in metrics.judged] == [
        (12, ("near",)),
        (12, ("near",)),
        (12, ("near",)),
        (20, ("near", "far")),
        (12, ("near",)),
        (20, ("near", "far")),
    ]
    raw, ema = metrics.judged[0][0], metrics.judged[1][0]
    assert not torch.equal(raw, ema)
    # The same noise at every evaluation: the first samples of the larger set are the smaller one.
    assert torch.equal(metrics.judged[2][0], metrics.judged[3][0][:12])
    rows = run.folder.rows("evaluations.jsonl")
    assert rows[3]["metrics"] == {"near": 4.0, "far": 4.0}
    assert rows[3]["n"] == 20
    assert rows[3]["step"] == 12
    assert rows[3]["gradient_calls"] == 24
