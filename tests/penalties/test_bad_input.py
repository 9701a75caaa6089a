"""Messages name the argument, what is wrong, and what to do."""

import pytest
import torch
from torch import nn

from compopt.penalties import (
    L2,
    R1,
    R2,
    CollapseMonitor,
    Diversity,
    Dragan,
    GradientPenalty,
    Layers,
    Orthogonal,
    SpectralPenalty,
    SpectralRegularizer,
    WganGP,
    gradient_penalty,
    interpolate,
    perturb,
)

X = torch.randn(4, 3)
CRITIC = nn.Linear(3, 1)
ON_SAMPLES = {
    "R1": lambda critic, x: R1()(critic, x),
    "R2": lambda critic, x: R2()(critic, x),
    "Dragan": lambda critic, x: Dragan()(critic, x),
    "WganGP": lambda critic, x: WganGP()(critic, x, x),
    "GradientPenalty": lambda critic, x: GradientPenalty()(critic, x),
}
on_samples = pytest.mark.parametrize("call", ON_SAMPLES.values(), ids=ON_SAMPLES)
ON_LAYERS = {
    "Diversity": lambda module, layers: Diversity(layers=layers)(module),
    "Orthogonal": lambda module, layers: Orthogonal(layers=layers)(module),
    "SpectralPenalty": lambda module, layers: SpectralPenalty(layers=layers)(module),
    "SpectralRegularizer": lambda module, layers: SpectralRegularizer(module, layers=layers),
    "CollapseMonitor": lambda module, layers: CollapseMonitor(module, layers=layers),
}
on_layers = pytest.mark.parametrize("call", ON_LAYERS.values(), ids=ON_LAYERS)


@on_samples
def test_samples(call):
    with pytest.raises(ValueError, match=r"must have shape \[n, \.\.\.\].*got \(3,\)"):
        call(CRITIC, torch.ones(3))
    with pytest.raises(ValueError, match=r"none of them empty, got \(0, 3\)"):
        call(CRITIC, torch.ones(0, 3))
    with pytest.raises(ValueError, match=r"floating-point samples, got torch.int64. Convert"):
        call(CRITIC, torch.ones(3, 3, dtype=torch.long))
    with pytest.raises(TypeError, match="must be a tensor of samples, got list"):
        call(CRITIC, [[1.0]])


@on_samples
def test_critics(call):
    frozen = nn.Linear(3, 1).requires_grad_(False)
    with pytest.raises(ValueError, match=r"`critic` \(Linear\) must have trainable weights"):
        call(frozen, X)
    with pytest.raises(ValueError, match=r"of shape \[n, \.\.\.\] for n = 4 samples, got \(\)"):
        call(lambda x: CRITIC(x).mean(), X)
    with pytest.raises(ValueError, match=r"n = 4 samples, got \(1, 4\)"):
        call(lambda x: CRITIC(x).T, X)
    with pytest.raises(TypeError, match="`critic` must return a tensor of scores, got tuple"):
        call(lambda x: (CRITIC(x), x), X)
    with pytest.raises(ValueError, match="`critic` must depend on its input with a graph"):
        call(lambda x: CRITIC(x.detach()), X)
    with pytest.raises(ValueError, match="must depend on its input with a graph"):
        call(lambda x: torch.ones(4), X)


def test_frozen_critics_have_a_value_without_gradients():
    with torch.no_grad():
        value = R1()(nn.Linear(3, 1).requires_grad_(False), X)
    assert value > 0


def test_pairs():
    with pytest.raises(ValueError, match=r"must have the same shape.*\(4, 3\).*\(2, 3\)"):
        WganGP()(CRITIC, X, X[:2])
    with pytest.raises(ValueError, match=r"`share` must have shape \(4,\), got \(4, 1\)"):
        interpolate(X, X, share=torch.ones(4, 1))


@on_layers
def test_layers(call):
    linear = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with pytest.raises(
        ValueError, match=r"`module` \(Sequential\) must have a conv layer.*it has none"
    ):
        call(linear, Layers())
    both = Layers(kinds=("conv", "linear"))
    with pytest.raises(ValueError, match=r"\(ReLU\) must have a conv or linear layer"):
        call(nn.ReLU(), both)
    with pytest.raises(ValueError, match=r"`skip` must name modules of .*got \['7'\]"):
        call(linear, Layers(kinds=("linear",), skip=("7",)))
    with pytest.raises(ValueError, match="`Layers` leaves all of them out"):
        call(linear, Layers(kinds=("linear",), skip=("0",)))
    with pytest.raises(TypeError, match="`module` must be a module, got Tensor"):
        call(X, both)


@pytest.mark.parametrize("name", ["Diversity", "Orthogonal", "SpectralPenalty"])
def test_terms_on_frozen_layers(name):
    frozen = nn.Sequential(nn.Conv2d(2, 2, 1).requires_grad_(False), nn.Linear(2, 2))
    with pytest.raises(
        ValueError, match=r"\(Sequential\) must have trainable weights in its conv layers"
    ):
        ON_LAYERS[name](frozen, Layers())


def test_l2():
    with pytest.raises(ValueError, match=r"`module` \(ReLU\) must have trainable weights"):
        L2()(nn.ReLU())
    with pytest.raises(ValueError, match=r"\(BatchNorm1d\).*with two axes or more.*biases=True"):
        L2()(nn.BatchNorm1d(3))
    with pytest.raises(TypeError, match="`module` must be a module, got generator"):
        L2()(nn.Linear(2, 2).parameters())


def test_values():
    with pytest.raises(ValueError, match="`perturbation` must be one of 'released', 'paper'"):
        Dragan(perturbation="gaussian")
    with pytest.raises(ValueError, match="`perturbation` must be one of"):
        perturb(X, perturbation="gaussian")
    with pytest.raises(ValueError, match="`scale` must be positive"):
        Dragan(scale=0.0)
    with pytest.raises(ValueError, match="`target` must be finite and not negative"):
        WganGP(target=-1.0)
    with pytest.raises(ValueError, match="`eps` must be positive"):
        GradientPenalty(eps=0.0)
    with pytest.raises(ValueError, match="`kinds` must be one of 'conv', 'linear'"):
        Layers(kinds=("norm",))
    with pytest.raises(ValueError, match="`kinds` must name one of"):
        Layers(kinds=())
    with pytest.raises(TypeError, match="`kinds` must be a tuple, got 'conv'"):
        Layers(kinds="conv")
    with pytest.raises(ValueError, match="`image_channels` must be at least 1"):
        Layers(image_channels=0)


def test_settings_cannot_be_changed_later():
    with pytest.raises(AttributeError):
        R1().coefficient = 3.0


def test_a_critic_may_be_a_function_of_a_network():
    value = gradient_penalty(lambda x: CRITIC(x).squeeze(1), X)
    assert value.requires_grad


def test_a_network_is_no_generator_of_random_numbers():
    network = nn.Linear(2, 3)
    for penalty in (WganGP(), Dragan()):
        given = {"critic": CRITIC, "real": X, "fake": X}
        with pytest.raises(TypeError, match=r"`generator` must be a torch\.Generator \(of random"):
            penalty.on(**given, generator=network)
        penalty.on(**given)
