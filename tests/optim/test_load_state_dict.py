"""Loading a state: what is refused, what it shares with the dictionary, and what hooks may do."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from games import QuadraticGame
from optimizer_info import NAN
from optimizer_registry import OPTIMIZERS, OptimizerInfo, Variant, each_kind
from snapshots import all_params, assert_same_bits, snapshot
from torch import Tensor
from training_runs import END, STOP, advance, start

from compopt import ACGD
from compopt.optim.rivals import SimultaneousDescentAscent


@each_kind
def test_loaded_state_does_not_alias_the_dictionary(info: OptimizerInfo) -> None:
    warm = Variant("", {"warm_start": True})
    _, optimizer = advance(start(info, warm), 0, STOP)
    saved = copy.deepcopy(optimizer.state_dict())
    kept = copy.deepcopy(saved)
    run = start(info, warm)
    run[1].load_state_dict(saved)
    advance(run, 0, 3)
    for index, state in kept["state"].items():
        for key, value in state.items():
            assert torch.equal(saved["state"][index][key], value), f"{index} {key}"


def other_players(state: dict[str, Any]) -> None:
    for group in state["param_groups"]:
        group["player"] = "max" if group["player"] == "min" else "min"


def no_players(state: dict[str, Any]) -> None:
    for group in state["param_groups"]:
        del group["player"]


def one_group(state: dict[str, Any]) -> None:
    del state["param_groups"][1]


def one_parameter_less(state: dict[str, Any]) -> None:
    state["param_groups"][0]["params"].pop()


def other_shape(state: dict[str, Any]) -> None:
    """Exchange two parameters' state whose total size stays the same."""
    state["state"][0], state["state"][1] = state["state"][1], state["state"][0]


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        pytest.param(other_players, "belong to the players", id="other-players"),
        pytest.param(no_players, "belong to the players", id="no-players"),
        pytest.param(one_group, "different number of parameter groups", id="one-group"),
        pytest.param(one_parameter_less, "size of optimizer's group", id="one-parameter-less"),
        pytest.param(other_shape, "shape", id="other-shape"),
    ],
)
@each_kind
def test_failing_load_changes_nothing(
    info: OptimizerInfo, spoil: Callable[[dict[str, Any]], None], match: str
) -> None:
    if spoil is other_shape and not (info.state_keys or info.is_competitive):
        return
    warm = Variant("", {"warm_start": True, "solve_for": "min"})
    run = advance(start(info, warm), 0, STOP)
    straight = advance(start(info, warm), 0, END)
    state = copy.deepcopy(advance(start(info, warm), 0, 1)[1].state_dict())
    for group in state["param_groups"]:
        group["lr"] = 0.5
    spoil(state)
    before, groups = snapshot(run[1]), repr(run[1])
    with pytest.raises(ValueError, match=match):
        run[1].load_state_dict(state)
    assert_same_bits(snapshot(run[1]), before)
    assert repr(run[1]) == groups
    advance(run, STOP, END)
    assert_same_bits(snapshot(run[1]), snapshot(straight[1]))


def set_entry(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(state: dict[str, Any]) -> None:
        state["state"][0][key] = value

    return spoil


def change_average(change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Any]], None]:
    def spoil(state: dict[str, Any]) -> None:
        state["state"][0]["exp_avg_sq"] = change(state["state"][0]["exp_avg_sq"])

    return spoil


def no_entry(state: dict[str, Any]) -> None:
    state["state"][0] = None


def list_entry(state: dict[str, Any]) -> None:
    state["state"][0] = []


NO_DATA = torch.zeros((), device="meta")


def no_state(state: dict[str, Any]) -> None:
    state["state"] = None


def no_params(state: dict[str, Any]) -> None:
    state["param_groups"][0]["params"] = None


def same_ids(state: dict[str, Any]) -> None:
    state["param_groups"][0]["params"][1] = state["param_groups"][0]["params"][0]


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        pytest.param(set_entry("step", True), TypeError, "`step`.*True", id="bool"),
        pytest.param(set_entry("step", "3"), TypeError, "`step`.*'3'", id="text"),
        pytest.param(set_entry("step", None), TypeError, "`step`.*None", id="none"),
        pytest.param(no_entry, TypeError, "must be a dictionary, got None", id="entry-none"),
        pytest.param(list_entry, TypeError, r"must be a dictionary, got \[\]", id="entry-list"),
        pytest.param(change_average(Tensor.to_sparse), ValueError, "dense", id="sparse"),
        pytest.param(change_average(lambda v: v * NAN), ValueError, "NaN or Inf", id="nan"),
        pytest.param(change_average(lambda v: v - 100), ValueError, "negative", id="negative"),
        pytest.param(same_ids, ValueError, "more than once", id="same-ids"),
        pytest.param(set_entry("step", 10**400), ValueError, "`step`.*finite", id="huge"),
        pytest.param(set_entry("step", NO_DATA), ValueError, "`step`.*number", id="no-data"),
        pytest.param(no_state, TypeError, "a dictionary as its `state`", id="state-none"),
        pytest.param(no_params, TypeError, "with `params`", id="params-none"),
    ],
)
def test_damaged_state_is_refused_and_changes_nothing(
    spoil: Callable[[dict[str, Any]], None], error: type[Exception], match: str
) -> None:
    info = next(info for info in OPTIMIZERS if info.cls is ACGD)
    warm = Variant("", {"warm_start": True})
    run = advance(start(info, warm), 0, STOP)
    state = copy.deepcopy(run[1].state_dict())
    spoil(state)
    before, groups = snapshot(run[1]), repr(run[1])
    with pytest.raises(error, match=match):
        run[1].load_state_dict(state)
    assert_same_bits(snapshot(run[1]), before)
    assert repr(run[1]) == groups


def test_state_of_a_one_player_optimizer_is_refused() -> None:
    game = QuadraticGame()
    adam = torch.optim.Adam([{"params": game.min_params}, {"params": game.max_params}])
    with pytest.raises(ValueError, match="belong to the players"):
        ACGD(game.min_params, game.max_params).load_state_dict(adam.state_dict())


@each_kind
def test_state_dict_hooks(info: OptimizerInfo) -> None:
    _, optimizer = advance(start(info), 0, STOP)
    calls = []
    optimizer.register_state_dict_pre_hook(lambda opt: calls.append(("save-pre", opt)))
    optimizer.register_state_dict_post_hook(
        lambda opt, state: calls.append(("save-post", opt)) or {**state, "epoch": 4}
    )
    optimizer.register_load_state_dict_pre_hook(
        lambda opt, state: calls.append(("load-pre", opt)) or None
    )
    optimizer.register_load_state_dict_post_hook(lambda opt: calls.append(("load-post", opt)))
    state = optimizer.state_dict()
    assert state["epoch"] == 4
    optimizer.load_state_dict(state)
    assert [name for name, _ in calls] == ["save-pre", "save-post", "load-pre", "load-post"]
    assert all(caller is optimizer for _, caller in calls)


@each_kind
def test_load_hooks_may_change_the_state(info: OptimizerInfo) -> None:
    """A hook may return another dictionary, e.g. to rename groups, and change what was loaded."""
    _, optimizer = advance(start(info), 0, STOP)
    saved = copy.deepcopy(optimizer.state_dict())

    def set_count(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        steps = {i: {**old, "step": torch.tensor(40.0)} for i, old in state["state"].items()}
        return {**state, "state": steps}

    handle = optimizer.register_load_state_dict_pre_hook(set_count)
    optimizer.load_state_dict(saved)
    assert {optimizer.state[param]["step"].item() for param in all_params(optimizer)} == {40.0}
    handle.remove()

    def count_on(opt: torch.optim.Optimizer) -> None:
        for param in all_params(opt):
            opt.state[param]["step"] = opt.state[param]["step"] + 100

    optimizer.register_load_state_dict_post_hook(count_on)
    optimizer.load_state_dict(saved)
    assert {optimizer.state[param]["step"].item() for param in all_params(optimizer)} == {
        100.0 + STOP
    }


@each_kind
def test_load_pre_hook_may_repair_the_players(info: OptimizerInfo) -> None:
    _, optimizer = advance(start(info), 0, STOP)
    saved = copy.deepcopy(optimizer.state_dict())
    no_players(saved)

    def add_players(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        groups = [
            {**group, "player": player}
            for group, player in zip(state["param_groups"], ("min", "max"), strict=True)
        ]
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(add_players)
    before = snapshot(optimizer)
    optimizer.load_state_dict(saved)
    assert [group["player"] for group in optimizer.param_groups] == ["min", "max"]
    assert_same_bits(snapshot(optimizer), before)


def test_a_state_that_the_players_optimizers_refuse_changes_nothing() -> None:
    game = QuadraticGame()
    adam = SimultaneousDescentAscent(game.min_params, game.max_params, optimizer=torch.optim.Adam)
    adam.step(game.loss())
    state = copy.deepcopy(adam.state_dict())
    del state["state"][0]["step"]
    before = snapshot(adam)
    with pytest.raises(ValueError, match="Adam of the min player does not take"):
        adam.load_state_dict(state)
    assert_same_bits(snapshot(adam), before)
    adam.step(game.loss())
