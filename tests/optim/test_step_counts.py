"""Step counts on the device: one tensor where they agree, so that parameters go together."""

import copy
import io

import pytest
import torch
from cases import CASES

from compopt import ACGD, ConjugateGradient

SOLVER = ConjugateGradient(rtol=0.0, max_iter=3)


def build(capturable=True):
    case = CASES["mlp-gan"]()
    optimizer = ACGD(
        case.min_params, case.max_params, lr=0.01, solver=SOLVER, capturable=capturable
    )
    return case, optimizer


def counts(optimizer, player):
    return [optimizer.state[param]["step"] for param in optimizer._params(player)]


def num_segments(optimizer):
    return [len(list(optimizer._vectors_of(player).segments)) for player in ("min", "max")]


def test_parameters_that_move_together_share_a_count():
    case, optimizer = build()
    assert num_segments(optimizer) == [1, 1]
    optimizer.step(case())
    addresses = {id(count) for player in ("min", "max") for count in counts(optimizer, player)}
    assert len(addresses) == 2
    for _ in range(2):
        optimizer.step(case())
    assert {id(c) for player in ("min", "max") for c in counts(optimizer, player)} == addresses
    assert all(count == 3 for player in ("min", "max") for count in counts(optimizer, player))
    assert num_segments(optimizer) == [1, 1]


@pytest.mark.parametrize("idle", [False, True], ids=["at once", "state first"])
def test_one_that_stays_behind_keeps_its_count(idle):
    runs = []
    for capturable in (True, False):
        case, optimizer = build(capturable)
        if idle:
            optimizer.step()
        toggled = case.min_params[0]
        for requires_grad in (True, False, False, True, False, True, True):
            toggled.requires_grad_(requires_grad)
            optimizer.step(case())
        runs.append((case, optimizer))
    (case, captured), (ordinary_case, ordinary) = runs
    assert [float(count) for count in counts(captured, "min")] == [4.0, 7.0, 7.0, 7.0]
    assert num_segments(captured) == num_segments(ordinary) == [2, 1]
    for one, other in zip(
        (*case.min_params, *case.max_params),
        (*ordinary_case.min_params, *ordinary_case.max_params),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


def through_a_file(optimizer):
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("how", [lambda o: o.state_dict(), through_a_file], ids=["plain", "file"])
def test_loading_finds_out_which_counts_agree(how):
    case, optimizer = build()
    case.min_params[0].requires_grad_(False)
    optimizer.step(case())
    case.min_params[0].requires_grad_(True)
    for _ in range(2):
        optimizer.step(case())
    saved = how(optimizer)
    _, loaded = build()
    loaded.load_state_dict(saved)
    assert [float(count) for count in counts(loaded, "min")] == [2.0, 3.0, 3.0, 3.0]
    assert num_segments(loaded) == [2, 1]
    # Nor is it shared with what was loaded, or with another optimizer.
    optimizer.step(case())
    assert [float(count) for count in counts(loaded, "min")] == [2.0, 3.0, 3.0, 3.0]


def test_copies_share_among_themselves_only():
    case, optimizer = build()
    optimizer.step(case())
    twin = copy.deepcopy(optimizer)
    optimizer.step(case())
    assert num_segments(twin) == [1, 1]
    assert all(count == 1 for count in counts(twin, "min"))


def test_decay_of_captured_steps_is_that_of_others():
    ends = []
    for capturable in (True, False):
        case, optimizer = build(capturable)
        for group in optimizer.param_groups:
            group["weight_decay"] = 5.0
        for _ in range(3):
            optimizer.step(case())
        ends.append(torch.cat([p.detach().flatten() for p in (*case.min_params, *case.max_params)]))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=0)
