"""Damaged state dicts and arguments of any kind: an error that names them, or none is due."""

import copy
import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from games import NetworkGame
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshots import all_params, assert_same_bits, snapshot

from compopt import ACGD, CGD, ConjugateGradient

quick = settings(max_examples=25, deadline=None)

WARM: dict[str, Any] = {"lr": 0.01, "warm_start": True, "solve_for": "alternate"}


def run(num_steps: int) -> tuple[NetworkGame, ACGD]:
    game = NetworkGame()
    optimizer = ACGD(game.min_params, game.max_params, **WARM)
    for step in range(num_steps):
        optimizer.step(game.loss(step))
    return game, optimizer


STATE = run(2)[1].state_dict()
NUM_PARAMS = len(STATE["state"])
indices = st.integers(0, NUM_PARAMS - 1)
vectors = st.sampled_from(["exp_avg_sq", "delta"])

BAD_VALUES = {
    "text": "0.5",
    "none": None,
    "list": [0.5],
    "integers": lambda value: value.long(),
    "complex": lambda value: value.to(torch.complex64),
    "more": lambda value: torch.cat([value.flatten(), value.flatten(), value.flatten()]),
    "fewer": lambda value: value.flatten()[:-1],
    "scalar": lambda value: value.sum() if value.numel() > 1 else torch.zeros(3),
}


def assert_refused(state: dict[str, Any], match: str) -> None:
    game, optimizer = run(1)
    before, groups = snapshot(optimizer), repr(optimizer)
    with pytest.raises((TypeError, ValueError), match=match):
        optimizer.load_state_dict(state)
    assert_same_bits(snapshot(optimizer), before)
    assert repr(optimizer) == groups
    optimizer.step(game.loss(1))
    assert_same_bits(snapshot(optimizer), snapshot(run(2)[1]))


@quick
@given(index=indices, key=vectors, kind=st.sampled_from(sorted(BAD_VALUES)))
def test_bad_vector_is_refused(index, key, kind):
    state = copy.deepcopy(STATE)
    spoil = BAD_VALUES[kind]
    old = state["state"][index][key]
    state["state"][index][key] = spoil(old) if callable(spoil) else spoil
    assert_refused(state, f"`{key}` of parameter {index}")


@quick
@given(
    index=indices,
    value=st.sampled_from([-1.0, math.nan, math.inf, torch.tensor(-2.0), torch.zeros(2)]),
)
def test_bad_count_is_refused(index, value):
    state = copy.deepcopy(STATE)
    state["state"][index]["step"] = value
    assert_refused(state, f"`step` of parameter {index}")


@quick
@given(index=indices, key=st.sampled_from(["step", "exp_avg_sq"]))
def test_missing_entry_is_refused(index, key):
    state = copy.deepcopy(STATE)
    del state["state"][index][key]
    assert_refused(state, f"parameter {index} lacks \\['{key}'\\]")


@quick
@given(index=indices, name=st.text(min_size=1, max_size=8))
def test_extra_entry_is_refused(index, name):
    state = copy.deepcopy(STATE)
    if name in state["state"][index]:
        return
    state["state"][index][name] = torch.zeros(1)
    assert_refused(state, f"parameter {index} has")


@quick
@given(index=st.integers(NUM_PARAMS, 10**6))
def test_state_of_no_parameter_is_refused(index):
    state = copy.deepcopy(STATE)
    state["state"][index] = state["state"][0]
    assert_refused(state, "for no parameter")


@quick
@given(
    group=st.sampled_from([0, 1]),
    key=st.sampled_from(["lr", "beta", "eps", "weight_decay"]),
    value=st.one_of(
        st.floats(max_value=-1e-9), st.just(math.nan), st.text(max_size=3), st.none(), st.booleans()
    ),
)
def test_bad_hyperparameter_is_refused(group, key, value):
    state = copy.deepcopy(STATE)
    state["param_groups"][group][key] = value
    assert_refused(state, f"`{key}` must be")


@quick
@given(group=st.sampled_from([0, 1]), key=st.sampled_from(["lr", "beta", "eps", "max_grad_norm"]))
def test_missing_hyperparameter_stays_as_it_is(group, key):
    state = copy.deepcopy(STATE)
    del state["param_groups"][group][key]
    _, optimizer = run(1)
    before = optimizer.param_groups[group][key]
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[group][key] == before


@pytest.mark.parametrize("key", ["state", "param_groups"])
def test_missing_part_is_refused(key):
    state = {name: value for name, value in STATE.items() if name != key}
    assert_refused(state, f"`state_dict` has no '{key}'")


@quick
@given(
    cls=st.sampled_from([CGD, ACGD]),
    lr=st.one_of(st.floats(), st.tuples(st.floats(), st.floats()), st.integers(-2, 2)),
    weight_decay=st.floats(),
    max_grad_norm=st.one_of(st.none(), st.floats()),
    interaction=st.one_of(st.none(), st.floats()),
)
def test_constructor_refuses_or_accepts(cls, lr, weight_decay, max_grad_norm, interaction):
    game = NetworkGame()
    rates = lr if isinstance(lr, tuple) else (lr, lr)
    valid = (
        all(0 <= rate < math.inf for rate in rates)
        and 0 <= weight_decay < math.inf
        and (max_grad_norm is None or 0 < max_grad_norm < math.inf)
        and (interaction is None or 0 < interaction < math.inf)
    )
    kwargs = {
        "lr": lr,
        "weight_decay": weight_decay,
        "max_grad_norm": max_grad_norm,
        "interaction": interaction,
    }
    if not valid:
        with pytest.raises((TypeError, ValueError), match=r"`[a-z_]+` must be"):
            cls(game.min_params, game.max_params, **kwargs)
        return
    optimizer = cls(game.min_params, game.max_params, **kwargs)
    assert [group["player"] for group in optimizer.param_groups] == ["min", "max"]
    assert len(all_params(optimizer)) == NUM_PARAMS


@quick
@given(rtol=st.floats(), atol=st.floats(), max_iter=st.integers(-3, 3))
def test_solver_refuses_or_is_made(rtol, atol, max_iter):
    valid = 0 <= rtol < math.inf and 0 <= atol < math.inf and max_iter >= 0
    expected = nullcontext() if valid else pytest.raises(ValueError, match="`")
    with expected:
        ConjugateGradient(rtol=rtol, atol=atol, max_iter=max_iter)
