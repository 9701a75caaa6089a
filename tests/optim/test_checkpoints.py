"""A resumed or copied run is bitwise the uninterrupted one, and what its state consists of."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from games import NetworkGame
from optimizer_registry import (
    OPTIMIZERS,
    OptimizerInfo,
    Variant,
    each_kind,
    each_option,
    each_stateful_option,
)
from snapshots import all_params, assert_same_bits, bits, snapshot
from training_runs import END, STOP, Run, advance, start, through_file


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


# Copies in memory where most has to be copied.
RESUMED = [
    pytest.param(*case.values, resume, id=f"{case.id}-{resume.__name__.split('_')[-1]}")
    for case in each_option.args[1]
    for resume in (resumed_from_file, resumed_from_deepcopy, resumed_from_pickle)
    if resume is resumed_from_file or "warm" in case.id
]


@pytest.mark.parametrize(("info", "variant", "resume"), RESUMED)
def test_resumed_run_is_bitwise_the_uninterrupted_one(
    info: OptimizerInfo, variant: Variant, resume: Callable[..., Run]
) -> None:
    straight = advance(start(info, variant), 0, END)
    stopped = advance(start(info, variant), 0, STOP)
    at_stop = snapshot(stopped[1])
    resumed = resume(info, variant, stopped)
    assert_same_bits(snapshot(resumed[1]), at_stop)
    if info.is_competitive:
        assert not hasattr(resumed[1], "last_step")
    advance(resumed, STOP, END)
    assert_same_bits(snapshot(resumed[1]), snapshot(straight[1]))
    # The stopped run shares nothing with its copy.
    assert_same_bits(snapshot(stopped[1]), at_stop)
    if not info.is_competitive:
        return
    assert resumed[1].last_step.num_hvp == straight[1].last_step.num_hvp
    assert resumed[1].last_step.solved_for == straight[1].last_step.solved_for


@each_stateful_option
def test_copies_keep_the_options(info: OptimizerInfo, variant: Variant) -> None:
    _, optimizer = start(info, variant)
    copied = copy.deepcopy(optimizer)
    for name in optimizer._options:
        assert getattr(copied, name) == getattr(optimizer, name), name
    assert repr(copied) == repr(optimizer)
    assert copied.defaults.keys() == optimizer.defaults.keys()


@pytest.mark.parametrize(
    ("info", "variant"),
    [
        *(pytest.param(info, info.variants[0], id=info.name) for info in OPTIMIZERS),
    ],
)
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@each_kind
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


@each_kind
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


@each_kind
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


@each_kind
def test_state_dict_before_the_first_step(info: OptimizerInfo) -> None:
    game, optimizer = start(info)
    state = through_file(optimizer.state_dict())
    assert state["state"] == {}
    other = start(info)
    other[1].load_state_dict(state)
    advance(other, 0, STOP)
    assert_same_bits(snapshot(other[1]), snapshot(advance((game, optimizer), 0, STOP)[1]))


@each_kind
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
