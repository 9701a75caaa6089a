import copy
from functools import partial
from typing import Any

import pytest
import torch
from covering import one_each, pairwise
from dense_steps import DenseReference, assert_close, assert_dense_step
from games import PLAYERS, NetworkGame, QuadraticGame
from optimizer_registry import KINDS, OptimizerInfo, each_kind, each_optimizer
from snapshots import all_params, assert_same_bits, bits, snapshot

from compopt import ACGD, CGD, ConjugateGradient, DirectSolver


def split_groups(info: OptimizerInfo, game: QuadraticGame) -> tuple[list[Any], list[Any]]:
    """Return a group for each tensor, each with its own hyperparameters."""
    own = info.own
    min_groups = [
        {"params": game.min_params[0], "lr": 0.1, **own[0]},
        {
            "params": [game.min_params[1]],
            "lr": torch.tensor(0.02).double(),
            "weight_decay": 0.3,
            **own[1],
        },
    ]
    max_groups = [
        {"params": game.max_params[:1], "max_grad_norm": 0.2, **own[2]},
        {"params": iter(game.max_params[1:]), "lr": 0.3, **own[3]},
    ]
    return min_groups, max_groups


@each_optimizer
def test_each_group_has_its_hyperparameters(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.cls(
        *split_groups(info, game), lr=(0.5, 0.05), **info.arguments(solver=DirectSolver())
    )
    assert [group["player"] for group in optimizer.param_groups] == ["min", "min", "max", "max"]
    lrs = [float(group["lr"]) for group in optimizer.param_groups]
    assert lrs == pytest.approx([0.1, 0.02, 0.05, 0.3])
    reference = DenseReference(info, game)
    for _ in range(6):
        assert_dense_step(info, optimizer, reference)
    # Every group's hyperparameters matter to the result.
    for index in range(4):
        twin_game = QuadraticGame()
        twin = info.cls(
            *split_groups(info, twin_game), lr=(0.5, 0.05), **info.arguments(solver=DirectSolver())
        )
        twin.param_groups[index]["lr"] = 0.0
        twin.step(twin_game.loss)
        start = QuadraticGame()
        names = [*start.min_params, *start.max_params]
        stays = [torch.equal(p, q) for p, q in zip(all_params(twin), names, strict=True)]
        assert stays == [position == index for position in range(4)]


@each_kind
def test_group_dictionaries_of_the_user_stay_as_they_are(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    groups = ([{"params": game.min_params, "lr": 0.1}], [{"params": game.max_params}])
    kept = copy.copy(groups[0][0]), copy.copy(groups[1][0])
    optimizer = info.cls(*groups)
    optimizer.param_groups[0]["lr"] = 0.7
    assert groups[0][0] == kept[0]
    assert groups[1][0] == kept[1]
    later = {"params": [torch.ones(2, requires_grad=True)], "player": "min"}
    kept = dict(later)
    optimizer.add_param_group(later)
    assert later == kept


@each_kind
def test_hyperparameters_changed_by_hand_are_used(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    reference = DenseReference(info, game)
    assert_dense_step(info, optimizer, reference)
    for group in optimizer.param_groups:
        group.update(lr=0.2, weight_decay=0.5, max_grad_norm=0.1)
    assert_dense_step(info, optimizer, reference)


@each_kind
def test_named_parameters(info: OptimizerInfo) -> None:
    game, named_game = NetworkGame(), NetworkGame()
    optimizer = info.build(game, lr=0.05)
    named = info.cls(
        named_game.generator.named_parameters(), named_game.critic.named_parameters(), lr=0.05
    )
    names = [name for name, _ in named_game.generator.named_parameters()]
    assert named.param_groups[0]["param_names"] == names
    for step in range(3):
        optimizer.step(partial(game.loss, step))
        named.step(partial(named_game.loss, step))
    assert_same_bits(snapshot(named), snapshot(optimizer))


@each_kind
def test_named_parameters_in_groups_and_a_rebuild(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.cls(
        [
            {"params": [("a", game.min_params[0])]},
            {"params": [("b", game.min_params[1])], "lr": 0.5},
        ],
        [("c", game.max_params[0]), ("d", game.max_params[1])],
        **info.arguments(solver=DirectSolver()),
    )
    assert [group["param_names"] for group in optimizer.param_groups] == [["a"], ["b"], ["c", "d"]]
    rebuilt = info.cls(optimizer.param_groups, **optimizer.defaults)
    assert repr(rebuilt) == repr(optimizer)
    rebuilt.solver = DirectSolver()
    assert_dense_step(info, rebuilt, DenseReference(info, game))


@each_kind
def test_groups_in_any_order_give_the_same_step(info: OptimizerInfo) -> None:
    game, other = QuadraticGame(), QuadraticGame()
    optimizer = info.exact(game)
    reordered = info.cls(
        [
            {"params": [other.max_params[1]], "player": "max"},
            {"params": [other.min_params[1]], "player": "min"},
            {"params": [other.max_params[0]], "player": "max"},
            {"params": [other.min_params[0]], "player": "min"},
        ],
        lr=0.1,
        **info.arguments(solver=DirectSolver()),
    )
    for _ in range(3):
        optimizer.step(game.loss)
        reordered.step(other.loss)
    for player in PLAYERS:
        for param, twin in zip(game.params(player), other.params(player), strict=True):
            assert_close(twin.detach(), param.detach(), f"{info.name} {player}")


@pairwise(info=KINDS, player=PLAYERS, warm_start={"cold": False, "warm": True})
def test_group_added_during_a_run(info: OptimizerInfo, player: str, warm_start: bool) -> None:
    game = QuadraticGame()
    late = game.params(player)[1]
    early = {name: game.params(name)[: 1 if name == player else 2] for name in PLAYERS}
    optimizer = info.cls(
        early["min"],
        early["max"],
        lr=(0.1, 0.05),
        **info.arguments(
            solver=ConjugateGradient(rtol=1e-13, max_iter=60),
            warm_start=warm_start,
            solve_for=player,
        ),
    )
    reference = DenseReference(info, game)
    for _ in range(3):
        assert_dense_step(info, optimizer, reference)
    old = early[player][0]
    kept = {key: value.clone() for key, value in optimizer.state[old].items()}
    optimizer.add_param_group({"params": [late], "player": player, "weight_decay": 0.1})
    assert optimizer.param_groups[-1]["lr"] == (0.1 if player == "min" else 0.05)
    assert late not in optimizer.state
    assert all(torch.equal(optimizer.state[old][key], kept[key]) for key in kept)
    for _ in range(3):
        assert_dense_step(info, optimizer, reference)
    assert optimizer.state[late]["step"].item() == 3
    assert optimizer.state[old]["step"].item() == 6


@each_kind
def test_refused_group_leaves_the_optimizer_as_it_was(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    text = repr(optimizer)
    fresh = torch.ones(2, requires_grad=True)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"params": [fresh]}, "player"),
        ({"params": [fresh], "player": "generator"}, "player"),
        ({"params": [fresh], "player": "min", "lr": -1.0}, "`lr`"),
        ({"params": [fresh], "player": "min", "weight_decay": -1.0}, "`weight_decay`"),
        ({"params": [fresh], "player": "min", "max_grad_norm": 0.0}, "`max_grad_norm`"),
        ({"params": [], "player": "min"}, "empty"),
        ({"params": [fresh, fresh], "player": "min"}, "more than once"),
        ({"params": game.max_params, "player": "min"}, "disjoint"),
        ({"params": game.min_params, "player": "min"}, "more than one parameter group"),
        ({"params": [fresh * 2], "player": "min"}, "non-leaf"),
        ({"params": [("name", fresh)], "player": "min"}, "with/without names"),
        ({"player": "min"}, "`params`"),
    ]
    for group, match in refused:
        with pytest.raises(ValueError, match=match):
            optimizer.add_param_group(group)
    with pytest.raises(TypeError, match="dictionary"):
        optimizer.add_param_group([fresh])
    with pytest.raises(TypeError, match="ordered"):
        optimizer.add_param_group({"params": {fresh}, "player": "min"})
    assert repr(optimizer) == text


@pytest.mark.parametrize(("info", "player"), one_each(KINDS, PLAYERS))
def test_frozen_parameters_stay_and_count_nothing(info: OptimizerInfo, player: str) -> None:
    game = QuadraticGame()
    frozen = game.params(player)[0].requires_grad_(False)
    optimizer = info.exact(game, weight_decay=0.1)
    before = bits(frozen)
    reference = DenseReference(info, game)
    for _ in range(3):
        assert_dense_step(info, optimizer, reference)
    assert torch.equal(bits(frozen), before)
    assert frozen not in optimizer.state
    assert frozen.grad is None


@pytest.mark.parametrize("warm_start", [False, True], ids=["cold", "warm"])
@each_kind
def test_freezing_and_thawing_during_a_run(info: OptimizerInfo, warm_start: bool) -> None:
    game = QuadraticGame()
    solver = ConjugateGradient(rtol=1e-13, max_iter=60)
    optimizer = info.exact(game, solver=solver, warm_start=warm_start, solve_for="min")
    reference = DenseReference(info, game)
    toggled = game.min_params[0]
    for requires_grad in (True, False, False, True, False, True, True):
        toggled.requires_grad_(requires_grad)
        before = snapshot(optimizer)
        assert_dense_step(info, optimizer, reference)
        if not requires_grad:
            after = snapshot(optimizer)
            own = {key for key in before if key == "parameter 0" or key.startswith("state 0 ")}
            assert len(own) == 2 + len(info.state_keys) + (warm_start and info.is_competitive)
            assert_same_bits({key: after[key] for key in own}, {key: before[key] for key in own})
    assert optimizer.state[toggled]["step"].item() == 4
    assert optimizer.state[game.min_params[1]]["step"].item() == 7


@pytest.mark.parametrize("player", PLAYERS)
@each_kind
def test_player_that_is_frozen_altogether_is_an_error(info: OptimizerInfo, player: str) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    optimizer.step(game.loss)
    before = snapshot(optimizer)
    for param in game.params(player):
        param.requires_grad_(False)
    with pytest.raises(ValueError, match=f"{player} player are frozen"):
        optimizer.step(game.loss)
    assert_same_bits(snapshot(optimizer), before)


@each_kind
def test_weight_decay_is_decoupled(info: OptimizerInfo) -> None:
    """The decay multiplies the parameters and reaches neither gradient, moments nor move."""
    plain_game, game = QuadraticGame(), QuadraticGame()
    plain = info.exact(plain_game, lr=(0.1, 0.2))
    decayed = info.exact(game, lr=(0.1, 0.2), weight_decay=0.5)
    start = [param.detach().clone() for param in all_params(plain)]
    plain.step(plain_game.loss)
    decayed.step(game.loss)
    rates = [0.1 * 0.5] * 2 + [0.2 * 0.5] * 2
    pairs = zip(all_params(plain), all_params(decayed), start, rates, strict=True)
    for param, twin, old, rate in pairs:
        assert_close(twin.detach(), param.detach() - rate * old, info.name)
        for key in info.state_keys:
            assert torch.equal(plain.state[param][key], decayed.state[twin][key])


@pytest.mark.parametrize("limit", [0.5, 1e6], ids=["clips", "does-not-clip"])
def test_max_grad_norm_scales_each_group_by_itself(limit: float) -> None:
    game, clipped_game = QuadraticGame(), QuadraticGame()
    groups = [{"params": [clipped_game.min_params[0]], "max_grad_norm": limit}]
    groups.append({"params": [clipped_game.min_params[1]]})
    optimizer = CGD(groups, clipped_game.max_params, lr=0.1, solver=DirectSolver())
    grads = game.own_grads()
    norm = grads["min"][:2].norm().item()
    assert norm > 0.5
    grads["min"][:2] *= min(1.0, limit / (norm + 1e-6))
    # The clipped gradient stands in the system in place of the gradient.
    matrix = torch.eye(8, dtype=torch.float64)
    matrix[:5, 5:], matrix[5:, :5] = 0.1 * game.mixed, -0.1 * game.mixed.T
    move = torch.linalg.solve(matrix, -0.1 * torch.cat([grads["min"], grads["max"]]))
    optimizer.step(clipped_game.loss)
    pieces = move.split([2, 3, 2, 1])
    start = [*game.min_params, *game.max_params]
    for param, old, piece in zip(all_params(optimizer), start, pieces, strict=True):
        assert_close(param.detach(), old.detach() + piece.view(old.shape), "clipped step")
    assert optimizer.last_step.grad_norms["min"] == pytest.approx(
        game.own_grads()["min"].norm().item()
    )


def test_moments_average_the_clipped_gradient() -> None:
    game = QuadraticGame()
    grads = game.own_grads()["min"]
    optimizer = ACGD(game.min_params, game.max_params, max_grad_norm=0.5, beta=0.9)
    optimizer.step(game.loss)
    expected = 0.1 * (grads * 0.5 / grads.norm()) ** 2
    actual = torch.cat([optimizer.state[p]["exp_avg_sq"].reshape(-1) for p in game.min_params])
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)


@each_kind
def test_pair_of_learning_rates_of_any_kind(info: OptimizerInfo) -> None:
    for lr in [(0.2, 0.1), [0.2, 0.1], (torch.tensor(0.2), 0.1), (0.2, torch.tensor(0.1))]:
        game = QuadraticGame(torch.float32)
        optimizer = info.exact(game, lr=lr)
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        assert rates == pytest.approx([0.2, 0.1])
        assert_dense_step(info, optimizer, DenseReference(info, game))


@each_kind
def test_direction_of_a_player_cannot_be_turned(info: OptimizerInfo) -> None:
    x, y = (torch.zeros(1, requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match=r"`maximize`.*max player maximizes the loss already"):
        info.cls([{"params": [x], "maximize": True}], [y])
    with pytest.raises(ValueError, match=r"`lr`.*-0.1.*max player maximizes the loss already"):
        info.cls([x], [y], lr=(0.1, -0.1))
    game = QuadraticGame()
    optimizer = info.build(game)
    optimizer.param_groups[0]["lr"] = -0.1
    with pytest.raises(ValueError, match=r"`lr`.*-0.1.*max player maximizes the loss already"):
        optimizer.step(info.argument(game.loss))
