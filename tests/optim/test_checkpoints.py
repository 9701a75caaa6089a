import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from games import NetworkGame, QuadraticGame
from optimizer_registry import OptimizerInfo, Variant, each_optimizer, each_variant
from snapshots import all_params, assert_same_bits, bits, snapshot
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from compopt import ACGD

# Odd, so that a resumed run that alternates from the beginning again is noticed.
STOP, END = 3, 7

Run = tuple[NetworkGame, torch.optim.Optimizer]


def start(info: OptimizerInfo, variant: Variant | None = None, **options: Any) -> Run:
    game = NetworkGame(**options)
    kwargs = {} if variant is None else variant.kwargs
    return game, info.cls(game.min_params, game.max_params, **kwargs)


def advance(run: Run, first: int, last: int) -> Run:
    game, optimizer = run
    for batch in range(first, last):
        optimizer.step(game.loss(batch))
    return run


def through_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed_from_file(info: OptimizerInfo, variant: Variant, run: Run) -> Run:
    networks = [run[0].generator.state_dict(), run[0].critic.state_dict()]
    networks, state = through_file([networks, run[1].state_dict()])
    other = start(info, variant, seed=1)
    # A run of its own first: what it leaves behind must not reach the resumed one.
    advance(other, 0, 2)
    other[0].noise, other[0].real = run[0].noise, run[0].real
    other[0].generator.load_state_dict(networks[0])
    other[0].critic.load_state_dict(networks[1])
    other[1].load_state_dict(state)
    return other


def resumed_from_deepcopy(info: OptimizerInfo, variant: Variant, run: Run) -> Run:
    return copy.deepcopy(run)


def resumed_from_pickle(info: OptimizerInfo, variant: Variant, run: Run) -> Run:
    return pickle.loads(pickle.dumps(run))


@pytest.mark.parametrize(
    "resume",
    [resumed_from_file, resumed_from_deepcopy, resumed_from_pickle],
    ids=["file", "deepcopy", "pickle"],
)
@each_variant
def test_resumed_run_is_bitwise_the_uninterrupted_one(
    info: OptimizerInfo, variant: Variant, resume: Callable[..., Run]
) -> None:
    straight = advance(start(info, variant), 0, END)
    stopped = advance(start(info, variant), 0, STOP)
    at_stop = snapshot(stopped[1])
    resumed = resume(info, variant, stopped)
    assert_same_bits(snapshot(resumed[1]), at_stop)
    assert resumed[1].last_step is None
    advance(resumed, STOP, END)
    assert_same_bits(snapshot(resumed[1]), snapshot(straight[1]))
    # The stopped run shares nothing with its copy.
    assert_same_bits(snapshot(stopped[1]), at_stop)
    assert resumed[1].last_step.num_hvp == straight[1].last_step.num_hvp
    assert resumed[1].last_step.solved_for == straight[1].last_step.solved_for


@each_variant
def test_copies_keep_the_options(info: OptimizerInfo, variant: Variant) -> None:
    _, optimizer = start(info, variant)
    copied = copy.deepcopy(optimizer)
    for name in ("solver", "warm_start", "solve_for", "on_failure", "capturable", "backend"):
        assert getattr(copied, name) == getattr(optimizer, name), name
    assert repr(copied) == repr(optimizer)
    assert copied.defaults.keys() == optimizer.defaults.keys()


@each_variant
def test_state_is_plain_tensors_of_each_parameter(info: OptimizerInfo, variant: Variant) -> None:
    _, optimizer = advance(start(info, variant), 0, STOP)
    solvable = {"min": False, "max": False}
    if variant.kwargs.get("warm_start"):
        chosen = variant.kwargs.get("solve_for", "smaller")
        # The generator of the network game has 22 parameters, the critic 21.
        chosen = {"alternate": ("min", "max"), "smaller": ("max",)}.get(chosen, (chosen,))
        solvable = {player: player in chosen for player in ("min", "max")}
    for group in optimizer.param_groups:
        keys = {"step", *info.state_keys} | ({"delta"} if solvable[group["player"]] else set())
        for param in group["params"]:
            state = optimizer.state[param]
            assert set(state) == keys
            assert all(type(value) is torch.Tensor for value in state.values())
            assert all(not value.requires_grad for value in state.values())
            assert all(value.shape == param.shape for key, value in state.items() if key != "step")
            assert state["step"].item() == STOP
            assert state["step"].dtype == torch.float32
    state_dict = optimizer.state_dict()
    assert list(state_dict["state"]) == list(range(len(all_params(optimizer))))
    assert set(state_dict) == {"state", "param_groups"}


@each_optimizer
def test_state_dict_is_deterministic(info: OptimizerInfo) -> None:
    dicts = [advance(start(info), 0, STOP)[1].state_dict() for _ in range(2)]
    assert dicts[0]["param_groups"] == dicts[1]["param_groups"]
    assert list(dicts[0]["state"]) == list(dicts[1]["state"])


@each_optimizer
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@each_optimizer
def test_loading_rounds_nothing(info: OptimizerInfo, dtype: torch.dtype) -> None:
    """``torch.optim`` casts state to the parameter's dtype, here float32 moments to bfloat16."""
    warm = Variant("", {"warm_start": True, "lr": 0.01})
    straight = advance(start(info, warm, dtype=dtype), 0, END)
    stopped = advance(start(info, warm, dtype=dtype), 0, STOP)
    precise = torch.float32 if dtype == torch.bfloat16 else dtype
    resumed = resumed_from_file_of(dtype, info, warm, stopped)
    for param in all_params(resumed[1]):
        for key, value in resumed[1].state[param].items():
            assert value.dtype == (torch.float32 if key == "step" else precise), key
    assert_same_bits(snapshot(resumed[1]), snapshot(stopped[1]))
    advance(resumed, STOP, END)
    assert_same_bits(snapshot(resumed[1]), snapshot(straight[1]))


def resumed_from_file_of(
    dtype: torch.dtype, info: OptimizerInfo, variant: Variant, run: Run
) -> Run:
    other = start(info, variant, dtype=dtype)
    other[0].generator.load_state_dict(run[0].generator.state_dict())
    other[0].critic.load_state_dict(run[0].critic.state_dict())
    other[1].load_state_dict(through_file(run[1].state_dict()))
    return other


@each_optimizer
def test_moments_of_float32_load_beside_half_parameters(info: OptimizerInfo) -> None:
    """A run that was float32 goes on with bfloat16 parameters and the moments as they were."""
    warm = Variant("", {"warm_start": True, "lr": 0.01})
    _, optimizer = advance(start(info, warm), 0, STOP)
    half = start(info, warm, dtype=torch.bfloat16)
    half[1].load_state_dict(optimizer.state_dict())
    for param, other in zip(all_params(optimizer), all_params(half[1]), strict=True):
        for key, value in optimizer.state[param].items():
            loaded = half[1].state[other][key]
            assert loaded.dtype == torch.float32
            assert torch.equal(bits(loaded), bits(value)), key
    advance(half, STOP, END)
    assert all(bool(param.isfinite().all()) for param in all_params(half[1]))


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
@each_optimizer
def test_failing_load_changes_nothing(
    info: OptimizerInfo, spoil: Callable[[dict[str, Any]], None], match: str
) -> None:
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


def test_state_of_a_one_player_optimizer_is_refused() -> None:
    game = QuadraticGame()
    adam = torch.optim.Adam([{"params": game.min_params}, {"params": game.max_params}])
    with pytest.raises(ValueError, match="belong to the players"):
        ACGD(game.min_params, game.max_params).load_state_dict(adam.state_dict())


@each_optimizer
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


@each_optimizer
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


@each_optimizer
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


@each_optimizer
def test_named_parameters_stay_in_the_state_dict(info: OptimizerInfo) -> None:
    game = NetworkGame()
    named = [list(net.named_parameters()) for net in (game.generator, game.critic)]
    optimizer = info.cls(*named)
    advance((game, optimizer), 0, STOP)
    names = [group["param_names"] for group in through_file(optimizer.state_dict())["param_groups"]]
    assert names == [[name for name, _ in entries] for entries in named]
    other = start(info)[1]
    other.load_state_dict(optimizer.state_dict())
    assert [group["param_names"] for group in other.param_groups] == names


@each_optimizer
def test_state_dict_before_the_first_step(info: OptimizerInfo) -> None:
    game, optimizer = start(info)
    state = through_file(optimizer.state_dict())
    assert state["state"] == {}
    other = start(info)
    other[1].load_state_dict(state)
    advance(other, 0, STOP)
    assert_same_bits(snapshot(other[1]), snapshot(advance((game, optimizer), 0, STOP)[1]))


@each_optimizer
def test_half_of_the_state_resumes_where_it_is(info: OptimizerInfo) -> None:
    """Parameters that were frozen have no state in the checkpoint; they start at step 0."""
    game, optimizer = start(info)
    game.generator[0].requires_grad_(False)
    advance((game, optimizer), 0, STOP)
    run = start(info)
    run[1].load_state_dict(through_file(optimizer.state_dict()))
    advance(run, STOP, END)
    counts = [run[1].state[param]["step"].item() for param in all_params(run[1])]
    assert counts == [END - STOP] * 2 + [END] * 6


class Both(nn.Module):
    def __init__(self, game: NetworkGame) -> None:
        super().__init__()
        self.generator, self.critic = game.generator, game.critic


@pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flattened"])
@pytest.mark.parametrize("lr", [0.05, torch.tensor(0.05)], ids=["number-lr", "tensor-lr"])
@each_optimizer
def test_distributed_checkpoint_round_trip(
    info: OptimizerInfo, lr: float | torch.Tensor, flatten: bool
) -> None:
    """The loader initializes state by a step with zero gradients, learning rate 0, no closure."""
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    warm = Variant("", {"lr": lr, "warm_start": True, "solve_for": "alternate"})
    straight = advance(start(info, warm), 0, END)
    game, optimizer = advance(start(info, warm), 0, STOP)
    saved = through_file(get_optimizer_state_dict(Both(game), optimizer, options=options))
    other = start(info, warm)
    set_optimizer_state_dict(Both(other[0]), other[1], saved, options=options)
    other[0].generator.load_state_dict(game.generator.state_dict())
    other[0].critic.load_state_dict(game.critic.state_dict())
    assert_same_bits(snapshot(other[1]), snapshot(optimizer))
    advance(other, STOP, END)
    assert_same_bits(snapshot(other[1]), snapshot(straight[1]))


@each_optimizer
def test_distributed_checkpoint_of_a_fresh_optimizer_disturbs_nothing(info: OptimizerInfo) -> None:
    warm = Variant("", {"lr": 0.05, "warm_start": True, "solve_for": "alternate"})
    straight = advance(start(info, warm), 0, STOP)
    run = start(info, warm)
    params = [param.detach().clone() for param in all_params(run[1])]
    get_optimizer_state_dict(Both(run[0]), run[1])
    for param, old in zip(all_params(run[1]), params, strict=True):
        assert torch.equal(bits(param), bits(old))
        assert run[1].state[param]["step"].item() == 0
    advance(run, 0, STOP)
    assert_same_bits(snapshot(run[1]), snapshot(straight[1]))
