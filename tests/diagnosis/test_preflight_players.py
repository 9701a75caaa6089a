"""Any number of players are rehearsed two at a time."""

import pytest
import torch
from torch import Tensor, nn
from wrong_derivatives import KINDS, ORDERS, wrong_layer

from compopt import PreflightError
from compopt.diagnosis import preflight_players


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Identity(), nn.Linear(4, 3)) for _ in range(3)
    ]


INPUT = torch.randn(8, 3)


def losses(players: list[nn.Module]) -> list[Tensor]:
    """Return losses in which each player sees the next one only."""
    first, second, third = players
    return [
        second(first(INPUT)).square().mean(),
        third(second(INPUT)).square().mean(),
        first(third(INPUT)).square().mean(),
    ]


def test_all_dependences_are_rehearsed() -> None:
    players = networks()
    reports = preflight_players(lambda: losses(players), players)
    assert set(reports) == {(0, 1), (1, 2), (2, 0)}
    for report in reports.values():
        assert report.interacts
        assert set(report.errors) == {"gradient", "product", "order"}
    params = [list(player.parameters()) for player in players]
    assert set(preflight_players(lambda: losses(players), params, measure=False)) == set(reports)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if ORDERS.get(kind, 1) < 3])
def test_wrong_derivatives_are_found_in_any_player(kind: str) -> None:
    for number in range(3):
        players = networks()
        players[number][2] = wrong_layer(kind)
        with pytest.raises(PreflightError, match=r"In the loss of player \d: .* wrong") as caught:
            preflight_players(lambda players=players: losses(players), players)
        assert f"players[{number}]" in str(caught.value)


def test_losses_that_cannot_be_of_these_players() -> None:
    players = networks()
    first, second, third = players

    def alone() -> list[Tensor]:
        return [player(INPUT).square().mean() for player in players]

    def own_missing() -> list[Tensor]:
        return [second(INPUT).mean(), second(first(INPUT)).mean(), third(first(INPUT)).mean()]

    def of_two() -> list[Tensor]:
        return losses(players)[:2]

    def without_graph() -> list[Tensor]:
        return [loss.detach() if i == 1 else loss for i, loss in enumerate(losses(players))]

    with pytest.raises(PreflightError, match="no loss depends on another player"):
        preflight_players(alone, players)
    with pytest.raises(PreflightError, match="loss of player 0 does not depend on its own"):
        preflight_players(own_missing, players)
    with pytest.raises(ValueError, match="one loss for each of the 3 players, got 2"):
        preflight_players(of_two, players)
    with pytest.raises(TypeError, match="a list of one loss for each player, got Tensor"):
        preflight_players(lambda: losses(players)[0], players)
    with pytest.raises(PreflightError, match=r"losses\[1\] without a graph"):
        preflight_players(without_graph, players)
    with pytest.raises(ValueError, match="at least two players, got 1"):
        preflight_players(of_two, players[:1])
