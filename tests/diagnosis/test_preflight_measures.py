"""Derivatives that are merely wrong are found, and right ones are not called wrong."""

import re

import pytest
import torch
from torch import nn
from wrong_derivatives import (
    KINDS,
    NETWORKS,
    ORDERS,
    PLACES,
    needed_order,
    plant,
    slope,
    wrong_layer,
)

from compopt import Game
from compopt.diagnosis import PreflightError, preflight
from compopt.nn import fuse
from compopt.penalties import R2

EACH_NETWORK = [
    name if name == "MLP" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS
]


def game(network, kind=None, place="", order=0, batch_size=4):
    """Return a game with a derivative of ``order`` by the noise in its loss."""
    torch.manual_seed(0)
    generator, critic = NETWORKS[network]()
    if order:
        # Torch's own normalizations have a wrong third derivative.
        fuse(generator)
    between = nn.Identity()
    if kind is not None and place == "between":
        between = wrong_layer(kind)
    elif kind is not None:
        plant(generator, critic, wrong_layer(kind), place)
    noise = torch.randn(batch_size, 3)
    with torch.no_grad():
        real = torch.randn_like(generator(noise))

    def loss():
        noise.requires_grad_()
        scores = critic(between(generator(noise)))
        plain = critic(real).mean() - nn.functional.softplus(scores).mean()
        return plain + slope(scores, noise, order).square().mean()

    return loss, generator, critic


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_right_derivatives_agree(network, order):
    report = preflight(*game(network, order=order))
    assert report.unmeasured is None, report.unmeasured
    assert set(report.errors) == {"gradient", "product", "order"}
    assert max(report.errors.values()) < 1e-4
    assert report.interacts


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", EACH_NETWORK)
def test_wrong_derivatives_are_found(network, kind, place):
    with pytest.raises(PreflightError) as raised:
        preflight(*game(network, kind, place, needed_order(kind, place)))
    text = str(raised.value)
    is_function = kind not in ("detached part", "hook")
    if place == "between":
        label = "`WrongBackward` of the loss function, outside of named modules"
        assert (label in text) == is_function
    else:
        which = ("first", "second", "third")[ORDERS.get(kind, 1) - 1]
        name = "max_player" if place == "critic" else "min_player"
        pattern = rf"The {which} derivative of {name}\S+ \((Layer|Stale)\) itself is wrong"
        assert re.search(pattern, text), text
    assert ("Write the backward" in text) == is_function
    assert ("Leave out hooks" in text) != is_function


@pytest.mark.parametrize("kind", ORDERS)
def test_faults_that_no_product_meets_are_not_reported(kind):
    """A plain loss differentiates the generator once."""
    assert preflight(*game("MLP", kind, "generator")).unmeasured is None


def test_a_third_derivative_that_no_product_takes_is_not_blamed():
    generator = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))
    critic = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 1))
    noise, hooked = torch.randn(8, 3), wrong_layer("hook")

    def loss():
        return critic(hooked(generator(noise))).square().mean()

    with pytest.raises(PreflightError) as raised:
        preflight(loss, generator, critic)
    assert "itself is wrong" not in str(raised.value)
    assert "Leave out hooks" in str(raised.value)


@pytest.mark.parametrize(
    ("layer", "instead"),
    [
        (nn.LayerNorm(6, eps=0.1), "Call `compopt.nn.fuse(network)`"),
        (nn.BatchNorm1d(6, eps=0.1), "Call `compopt.nn.fuse(network)`"),
        (nn.InstanceNorm1d(2, eps=0.1, affine=True), "Call `compopt.nn.fuse(network)`"),
        (
            nn.InstanceNorm1d(2, eps=0.1, track_running_stats=True),
            "Write the layer in elementary torch operations",
        ),
    ],
)
def test_remedies_for_third_derivatives_work(layer, instead):
    rows = [nn.Unflatten(1, (2, 3)), layer, nn.Flatten()]
    inner = rows if isinstance(layer, nn.InstanceNorm1d) else [layer]
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(4, 6), *inner, nn.Tanh(), nn.Linear(6, 1))
    generator, noise, real = nn.Linear(3, 4), torch.randn(8, 3), torch.randn(8, 4)

    def loss(detach: bool = False):
        fake = generator(noise)
        penalty = R2(detach=detach)(critic, fake)
        plain = critic(real).mean() - critic(fake).mean()
        return Game(plain, max_penalty=penalty) if detach else plain - penalty

    with pytest.raises(PreflightError) as raised:
        preflight(loss, generator, critic)
    assert f"({type(layer).__name__}) itself is wrong" in str(raised.value)
    assert instead in str(raised.value)
    assert preflight(lambda: loss(detach=True), generator, critic).unmeasured is None
    if "fuse" in instead:
        fuse(critic)
        assert preflight(loss, generator, critic).unmeasured is None
