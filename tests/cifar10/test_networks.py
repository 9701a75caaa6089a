"""The networks are the published ones."""

import pytest
import torch
from torch import nn

from benchmarks.cifar10.config import NetworkConfig
from benchmarks.cifar10.networks import PAIRS, build_networks
from benchmarks.networks import num_parameters

PUBLISHED = {
    "small": (8_665_283, 1_694_145),
    "dcgan": (1_195_587, 662_977),
    "dcgan16": (402_627, 136_385),
    "sn-resnet": (4_276_739, 1_053_825),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_parameter_counts_are_the_published_ones(kind):
    counts = tuple(num_parameters(module) for module in build_networks(NetworkConfig(kind), 0))
    assert counts == PUBLISHED[kind]


@pytest.mark.parametrize("width", [1 / 16, 0.3, 2.0])
@pytest.mark.parametrize("kind", PAIRS)
def test_any_width_maps_noise_to_images_to_scores(kind, width):
    generator, critic = build_networks(NetworkConfig(kind, width, 5), 0, dropout=0.5)
    images = generator(torch.randn(3, 5))
    size = NetworkConfig(kind).image_size
    assert images.shape == (3, 3, size, size)
    assert images.abs().max() <= 1
    assert critic(images).shape == (3, 1)
    assert num_parameters(generator) != PUBLISHED[kind][0]


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_dcgan_starts_as_published(width):
    generator, critic = build_networks(NetworkConfig("dcgan", width), 0)
    for module in (generator, critic):
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                std = 0.01 if layer.in_channels == 3 else 0.01 / width**0.5
                assert layer.weight.std().item() == pytest.approx(std, rel=0.1)


def test_resnet_starts_as_published():
    generator, critic = build_networks(NetworkConfig("sn-resnet", 0.5), 0)
    for module in (generator, critic):
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                gain = 2**0.5 if "convs" in name else 1.0
                size = layer.weight[0, 0].numel() if layer.weight.dim() == 4 else 1
                fans = (layer.weight.shape[0] + layer.weight.shape[1]) * size
                bound = gain * (6 / fans) ** 0.5
                assert bound * 0.9 < layer.weight.abs().max() <= bound
                assert not layer.bias.any()


def test_all_cells_of_a_seed_start_alike_and_leave_the_global_state(tiny):
    before = torch.random.get_rng_state()
    first, second = (build_networks(tiny.network, 3, dropout=p) for p in (0.0, 0.5))
    assert torch.equal(torch.random.get_rng_state(), before)
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    third = build_networks(tiny.network, 4)
    assert not torch.equal(next(first[0].parameters()), next(third[0].parameters()))


@pytest.mark.parametrize("kind", PAIRS)
def test_dropout_is_active_in_training_alone(kind):
    _, critic = build_networks(NetworkConfig(kind, 0.25), 0, dropout=0.5)
    images = torch.rand(2, 3, *[NetworkConfig(kind).image_size] * 2)
    assert not torch.equal(critic(images), critic(images))
    critic.eval()
    assert torch.equal(critic(images), critic(images))


@pytest.mark.parametrize("kind", PAIRS)
def test_networks_can_be_differentiated_twice(kind):
    generator, critic = build_networks(NetworkConfig(kind, 0.1, 4), 0)
    loss = critic(generator(torch.randn(2, 4))).mean()
    grads = torch.autograd.grad(loss, list(critic.parameters()), create_graph=True)
    total = sum(grad.square().sum() for grad in grads)
    mixed = torch.autograd.grad(total, list(generator.parameters()), allow_unused=True)
    assert any(grad is not None and grad.abs().max() > 0 for grad in mixed)
