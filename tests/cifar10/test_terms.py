"""Explicit terms do what their names say, with their published settings."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from benchmarks.cifar10.batches import Draw
from benchmarks.cifar10.config import NetworkConfig
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.networks import build_networks
from benchmarks.cifar10.terms import TermConfig, build_term, dropout_of
from compopt.penalties import L2, R1, AdvAs, Diversity, Dragan, Layers, WganGP


@pytest.fixture
def networks():
    return build_networks(NetworkConfig("dcgan", 1 / 16, 8), 0)


@pytest.fixture
def draw():
    noise = torch.randn(2, 6, 8)
    real = torch.rand(6, 3, 32, 32) * 2 - 1
    return Draw(real, noise[0], noise[1], torch.Generator().manual_seed(7))


def again():
    return torch.Generator().manual_seed(7)


LAYERS = Layers(image_channels=3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "wgan-gp",
            lambda c, real, fake: WganGP(coefficient=10.0)(c, real, fake, generator=again()),
        ),
        ("r1", lambda c, real, fake: R1(coefficient=10.0)(c, real)),
        ("dragan", lambda c, real, fake: Dragan(coefficient=10.0)(c, real, generator=again())),
        ("l2", lambda c, real, fake: L2(coefficient=1e-3)(c)),
        (
            "diversity",
            lambda c, real, fake: Diversity(coefficient=0.1, threshold=0.5, layers=LAYERS)(c),
        ),
    ],
)
def test_terms_of_the_critic_have_their_published_settings(networks, draw, kind, expected):
    generator, critic = networks
    if kind == "diversity":
        # Random filters are far from parallel.
        critic.layers[2].weight.data[1] = critic.layers[2].weight.data[0]
    fake = generator(draw.noise)
    term = build_term(TermConfig(kind), critic)
    found = term.critic_penalty(critic, draw.real, fake, draw)
    assert found.item() == pytest.approx(expected(critic, draw.real, fake).item(), rel=1e-6)
    assert found.item() > 0
    if kind != "diversity":
        assert term.generator_penalty(found, generator, critic, draw) is None


def test_diversity_is_asked_of_the_generator_too(networks, draw):
    generator, critic = networks
    term = build_term(TermConfig("diversity"), critic)
    # Filters of a transposed convolution lie along its second axis.
    generator.conv[0].weight.data[:, 1] = generator.conv[0].weight.data[:, 0]
    found = term.generator_penalty(torch.zeros(()), generator, critic, draw)
    assert found.item() == pytest.approx(0.001 * 2, rel=1e-5)


def test_advas_is_for_the_generator_alone(networks, draw):
    generator, critic = networks
    term = build_term(TermConfig("advas"), critic)
    value = critic(draw.real).mean() - critic(generator(draw.noise)).mean()
    found = term.generator_penalty(value, generator, critic, draw)
    assert found.item() == pytest.approx(AdvAs()(value, critic, generator).item(), rel=1e-6)
    assert term.critic_penalty(critic, draw.real, draw.real, draw) is None
    assert term.needs_value


@pytest.mark.parametrize("kind", ["spectral-norm", "srgan"])
def test_spectral_norm_reaches_every_layer_of_the_critic(networks, kind):
    generator, critic = networks
    build_term(TermConfig(kind), critic)
    for module, expected in ((critic, True), (generator, False)):
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert parametrize.is_parametrized(layer, "weight") == expected
    for _ in range(50):
        critic(torch.zeros(1, 3, 32, 32))
    weight = critic.layers[2].weight.flatten(1)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, rel=1e-3)


def test_srgan_raises_half_of_the_spectrum_at_every_fifth_step(networks):
    _, critic = networks
    term = build_term(TermConfig("srgan"), critic)
    original = critic.layers[2].parametrizations.weight.original
    before = original.detach().clone()
    for _ in range(4):
        term.after_step()
    assert torch.equal(original, before)
    term.after_step()
    values = torch.linalg.svdvals(original.detach().flatten(1))
    half = len(values) // 2
    assert torch.allclose(values[:half], torch.ones(half), atol=1e-5)
    assert values[half] < 0.99


def test_srgan_keeps_its_rhythm_through_a_checkpoint(networks):
    _, critic = networks
    term = build_term(TermConfig("srgan"), critic)
    term.after_step()
    _, fresh_critic = build_networks(NetworkConfig("dcgan", 1 / 16, 8), 0)
    fresh = build_term(TermConfig("srgan"), fresh_critic)
    fresh.load_state_dict(term.state_dict())
    assert fresh.projection.num_steps == 1


def test_dropout_is_a_half_unless_said_otherwise():
    assert dropout_of(TermConfig("dropout")) == 0.5
    assert dropout_of(TermConfig("dropout", {"probability": 0.2})) == 0.2
    assert dropout_of(TermConfig("none")) == 0.0
    with pytest.raises(BenchmarkError, match=r"must be in \[0, 1\), got 1.5"):
        dropout_of(TermConfig("dropout", {"probability": 1.5}))


def test_options_change_a_term(networks, draw):
    generator, critic = networks
    fake = generator(draw.noise)
    terms = [build_term(TermConfig("r1", {"coefficient": c}), critic) for c in (1.0, 3.0)]
    first, second = (t.critic_penalty(critic, draw.real, fake, draw).item() for t in terms)
    assert second == pytest.approx(3 * first, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("r1", {"coeficient": 1.0}, "known: coefficient"),
        ("none", {"coefficient": 1.0}, "known: none"),
        ("wgan-gp", {"coefficient": -1.0}, "`coefficient` must be"),
        ("srgan", {"share": 2}, "`share` must be"),
        ("diversity", {"threshold": "high"}, "threshold"),
    ],
)
def test_bad_options_are_refused_with_the_known_ones(networks, kind, options, message):
    with pytest.raises(BenchmarkError, match=message):
        build_term(TermConfig(kind, options), networks[1])
