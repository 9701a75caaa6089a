"""What a preflight reports of a game that can be played, and the arguments it takes."""

import dataclasses

import pytest
import torch
from preflight_games import WIDTH, generator, healthy, play
from torch import nn

from compopt import Game
from compopt.diagnosis import PreflightError, preflight


def test_report_of_a_linear_critic():
    min_player, max_player = generator(), nn.Linear(WIDTH, 1)
    min_player.append(nn.Linear(WIDTH, WIDTH))
    z, real = torch.randn(6, 2), torch.randn(6, WIDTH)
    unused = nn.Parameter(torch.ones(3))
    max_player.register_parameter("unused", unused)
    expected = float((max_player(real).mean() - max_player(min_player(z)).mean()).detach())
    report = preflight(
        lambda: max_player(real).mean() - max_player(min_player(z)).mean(), min_player, max_player
    )
    assert report.loss == pytest.approx(expected)
    assert report.without_gradient == ("max_player.unused",)
    assert report.without_mixed == ("max_player.bias", "max_player.unused")
    assert report.interacts
    assert report.seconds_gradient > 0
    assert min(report.seconds_product.values()) > 0
    text = str(report)
    assert "the players interact" in text
    assert "no gradient: max_player.unused" in text
    assert "no mixed derivative: max_player.bias, max_player.unused" in text


def test_players_that_do_not_interact():
    x, y = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    report = preflight(lambda: x.square().sum() - y.square().sum(), [x], [y])
    assert not report.interacts
    assert report.without_mixed == ("min_player[0]", "max_player[0]")
    assert "do not interact: this is gradient descent-ascent" in str(report)
    assert "no gradient: none" in str(report)


def test_terms_of_one_player_count_as_gradients():
    x, y, z = (torch.ones(2, requires_grad=True) for _ in range(3))
    report = preflight(lambda: Game((x * y).sum(), max_penalty=z.square().sum()), [x], [y, z])
    assert report.without_gradient == ()
    assert report.without_mixed == ("max_player[1]",)


def test_penalty_is_differentiated_by_its_own_player_only():
    x, y = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)

    def zero_root() -> Game:
        return Game((x * y).sum(), max_penalty=x.sum().sqrt() + y.square().sum())

    assert preflight(zero_root, [x], [y]).interacts


def test_names_of_parameters_come_from_any_module():
    first, second, critic = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1)
    extra, lone = nn.Linear(1, 1), nn.Parameter(torch.ones(1))
    z = torch.randn(3, 2)
    players = {
        "min_player": [first, second],
        "max_player": [*critic.parameters(), *extra.parameters(), lone],
    }
    report = preflight(lambda: critic(second(first(z))).mean(), **players, modules=[extra, critic])
    assert report.without_gradient == ("modules[0].weight", "modules[0].bias", "max_player[4]")
    players["max_player"] = critic.named_parameters()
    players["min_player"] = iter([first, second])
    report = preflight(lambda: critic(second(first(z))).mean() + 0 * lone, **players)
    assert report.without_mixed == ("bias",)
    second.register_parameter("spare", nn.Parameter(torch.ones(1)))
    players = {"min_player": [first, second], "max_player": critic}
    report = preflight(lambda: critic(second(first(z))).mean(), **players)
    assert report.without_gradient == ("min_player[1].spare",)


def test_frozen_parameters_are_left_out():
    loss_fn, min_player, max_player = play(nn.Tanh())
    max_player.entry.weight.requires_grad_(False)
    report = preflight(loss_fn, min_player, max_player)
    assert report.without_gradient == ()
    assert not max_player.entry.weight.requires_grad


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"min_player": 3}, TypeError, "`min_player` must be a module, modules, or an iterable"),
        ({"max_player": []}, ValueError, "`max_player` is empty"),
        ({"max_player": nn.Tanh()}, ValueError, "`max_player` is empty"),
        ({"modules": [3]}, TypeError, "`modules` must hold modules, got int"),
        ({"loss_fn": lambda: 3.0}, TypeError, "`loss` must be a scalar tensor, got float"),
        (
            {"loss_fn": lambda: torch.ones(2, requires_grad=True)},
            ValueError,
            "`loss` must be a real scalar that requires grad, got shape (2,)",
        ),
    ],
)
def test_invalid_arguments(arguments, error, text):
    loss_fn, min_player, max_player = play(nn.Tanh())
    given = {"loss_fn": loss_fn, "min_player": min_player, "max_player": max_player, **arguments}
    with pytest.raises(error) as raised:
        preflight(**given)
    assert text in str(raised.value)
    assert not isinstance(raised.value, PreflightError)


def test_shared_parameters_are_refused():
    loss_fn, min_player, max_player = play(nn.Tanh())
    with pytest.raises(ValueError, match="`min_player` and `max_player` must be disjoint; 2 "):
        preflight(loss_fn, min_player, [max_player, min_player])


def test_report_is_frozen():
    report = healthy(nn.Tanh())
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.loss = 0.0
