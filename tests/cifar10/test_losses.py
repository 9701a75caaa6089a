"""Losses against their formulas."""

import math

import pytest
import torch

from benchmarks.cifar10.losses import LOSSES

REAL, FAKE = torch.tensor([[2.0], [-0.5]]), torch.tensor([[0.3], [-1.5]])


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


CROSS_ENTROPY = sum(math.log(sigmoid(v)) for v in (2.0, -0.5)) / 2
CROSS_ENTROPY += sum(math.log(1 - sigmoid(v)) for v in (0.3, -1.5)) / 2
VALUES = {
    "wgan": 0.75 - (-0.6),
    "bce": CROSS_ENTROPY,
    "non-saturating": CROSS_ENTROPY,
    # max(0, 1 - 2), max(0, 1.5) and max(0, 1.3), max(0, -0.5).
    "hinge": -(0 + 1.5) / 2 - (1.3 + 0) / 2,
}
GENERATOR = {
    "wgan": 0.6,
    "bce": sum(math.log(1 - sigmoid(v)) for v in (0.3, -1.5)) / 2,
    "non-saturating": -sum(math.log(sigmoid(v)) for v in (0.3, -1.5)) / 2,
    "hinge": 0.6,
}


@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_the_formulas(name):
    loss = LOSSES[name]
    assert loss.value(REAL, FAKE).item() == pytest.approx(VALUES[name], rel=1e-6)
    assert loss.critic_objective(REAL, FAKE).item() == pytest.approx(-VALUES[name], rel=1e-6)
    assert loss.generator_objective(FAKE).item() == pytest.approx(GENERATOR[name], rel=1e-6)
    assert loss.is_zero_sum == (name in ("wgan", "bce"))


@pytest.mark.parametrize("name", ["wgan", "bce"])
def test_a_zero_sum_generator_has_the_derivative_of_the_value(name):
    scores = FAKE.clone().requires_grad_()
    loss = LOSSES[name]
    (whole,) = torch.autograd.grad(loss.value(REAL, scores), scores)
    (own,) = torch.autograd.grad(loss.generator_objective(scores), scores)
    assert torch.allclose(whole, own, rtol=1e-6, atol=0)
