"""Costs are measured in one run, and stored by what they depend on."""

import dataclasses
import time

import pytest

from benchmarks.cifar10 import costs
from benchmarks.cifar10.config import CostConfig
from benchmarks.cifar10.optimizers import OptimizerConfig
from benchmarks.cifar10.terms import TermConfig


class Clock:
    """Time passes by what is called, not by what the machine does."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """A clock on which a step of Adam takes 2 s, one of ACGD 3 s and each product 1 s more."""
    clock = Clock()
    monkeypatch.setattr(time, "process_time", clock)
    advance = costs.Training.advance

    def timed(training):
        before = training.totals.mixed_products
        advance(training)
        seconds = 2.0 if training.config.optimizer.kind == "adam-alternating" else 3.0
        clock.now += seconds + training.totals.mixed_products - before

    monkeypatch.setattr(costs.Training, "advance", timed)
    monkeypatch.setattr(costs, "PERIOD", 2)
    return clock


def test_step_and_product_are_told_apart(tiny, clock):
    control = dataclasses.replace(tiny, optimizer=OptimizerConfig(kind="acgd", interaction=0.0))
    measured = costs.measure([tiny, control], 2)
    assert measured == {
        costs.cost_key(tiny): CostConfig(step=1.5, product=0.5),
        costs.cost_key(control): CostConfig(step=1.5, product=0.0),
    }


def test_costs_are_kept_by_kind(tiny, tmp_path):
    file = tmp_path / "costs.json"
    key = costs.cost_key(tiny)
    costs.store({key: CostConfig(2.0, 0.5), "other": CostConfig(7.0)}, 3, file)
    costs.store({key: CostConfig(3.0, 0.25)}, 3, file)
    assert costs.stored_costs(file) == {key: CostConfig(3.0, 0.25), "other": CostConfig(7.0)}


def test_the_kind_is_what_changes_the_cost(tiny):
    assert costs.cost_key(tiny) == "dcgan x0.03125, batch 8, acgd, wgan, none"
    same = dataclasses.replace(tiny, seed=4, steps=3, optimizer=OptimizerConfig(lr=1.0, rtol=0.3))
    assert costs.cost_key(same) == costs.cost_key(tiny)
    others = [
        dataclasses.replace(tiny, batch_size=9),
        dataclasses.replace(tiny, loss="bce"),
        dataclasses.replace(tiny, term=TermConfig("r1")),
        dataclasses.replace(tiny, term=TermConfig("r1", {"every": 16})),
        dataclasses.replace(tiny, optimizer=OptimizerConfig(interaction=0.0)),
        dataclasses.replace(tiny, optimizer=OptimizerConfig(curvature_share=0.5)),
        dataclasses.replace(tiny, optimizer=OptimizerConfig("adam-alternating", critic_steps=2)),
        dataclasses.replace(tiny, optimizer=OptimizerConfig("adam-alternating")),
        dataclasses.replace(tiny, network=dataclasses.replace(tiny.network, kind="dcgan16")),
    ]
    assert len({costs.cost_key(config) for config in [tiny, *others]}) == len(others) + 1
