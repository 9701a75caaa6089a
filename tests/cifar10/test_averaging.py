"""Samples are a function of weights and seed, and change nothing."""

import pytest
import torch
from torch import nn

from benchmarks.cifar10.averaging import sample, to_uint8
from benchmarks.cifar10.config import NetworkConfig
from benchmarks.cifar10.errors import Diverged
from benchmarks.cifar10.networks import build_networks


@pytest.fixture
def generator():
    network, _ = build_networks(NetworkConfig("dcgan", 1 / 16, 8), 0)
    # Statistics that belong to no weights.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.fill_(5.0)
            module.num_batches_tracked.fill_(1000)
    return network


def test_samples_repeat_and_leave_everything_as_it_was(generator):
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    state = torch.random.get_rng_state()
    first = sample(generator, 300, seed=0, norm_images=64)
    assert torch.equal(first, sample(generator, 300, seed=0, norm_images=64))
    assert first.shape == (300, 3, 32, 32)
    assert first.dtype == torch.uint8
    assert not torch.equal(first, sample(generator, 300, seed=1, norm_images=64))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert generator.training
    for key, value in generator.state_dict().items():
        assert torch.equal(value, before[key])


def test_normalization_takes_the_statistics_of_the_present_weights(generator):
    sampled = sample(generator, 200, seed=0, norm_images=1024).float()
    # In training mode a large batch has these statistics by itself.
    with torch.no_grad():
        expected = to_uint8(generator(torch.randn(1024, 8))).float()
    spread = expected.std(dim=0).mean()
    assert (sampled.mean(dim=0) - expected.mean(dim=0)).abs().mean() < 0.2 * spread
    generator.eval()
    with torch.no_grad():
        stale = to_uint8(generator(torch.randn(200, 8))).float()
    assert (stale.mean(dim=0) - expected.mean(dim=0)).abs().mean() > 0.2 * spread


def test_pixels_are_rounded_and_clamped():
    values = torch.tensor([-1.5, -1.0, -0.996, 0.0, 0.998, 1.0, 1.7])
    assert to_uint8(values).tolist() == [0, 0, 1, 128, 255, 255, 255]


def test_images_that_are_not_finite_are_a_divergence():
    with pytest.raises(Diverged, match="not finite"):
        to_uint8(torch.tensor([0.0, float("nan")]))
