"""The charts of mirror maps against derivatives of the maps, and parameters that do not fit."""

from typing import Any

import pytest
import torch
from mirror_sets import (
    BOX,
    POINTS,
    POTENTIALS,
    assert_close,
    assert_inside,
    each_set,
    game_of,
    leaf,
    tangent,
)
from snapshots import assert_same_bits, snapshot
from torch.autograd.functional import hessian

from compopt import ACGD, CGD, GMRES, StepWarning
from compopt.optim.mirrors import check_feasible, make_chart


@each_set
def test_charts_factor_the_inverse_metric(mirror: Any) -> None:
    """``S S^T`` solves ``P d = g`` on the moves that the set allows."""
    point = POINTS[mirror]
    chart = make_chart(mirror, point)
    metric = hessian(POTENTIALS[mirror], point).reshape(point.numel(), -1)
    move = tangent(mirror, point.shape, 1)
    gradient = (metric @ move.reshape(-1)).reshape(point.shape)
    assert_close(chart.push(chart.pull(gradient)), move)
    u, v = tangent("euclidean", point.shape, 2), tangent("euclidean", point.shape, 3)
    assert_close((chart.push(u) * v).sum(), (u * chart.pull(v)).sum())


@each_set
def test_moves_follow_the_dual_geometry(mirror: Any) -> None:
    point, potential = POINTS[mirror], POTENTIALS[mirror]
    chart = make_chart(mirror, point)
    local = 0.3 * chart.pull(tangent("euclidean", point.shape, 4))
    moved = chart.moved(local)
    assert_inside(mirror, moved)
    dual = torch.func.grad(potential)
    metric = hessian(potential, point).reshape(point.numel(), -1)
    expected = dual(point) + (metric @ chart.push(local).reshape(-1)).reshape(point.shape)
    actual = dual(moved)
    if mirror == "simplex":
        # Along the normal of the simplex the dual point is not determined.
        actual, expected = (d - d.mean(-1, keepdim=True) for d in (actual, expected))
    assert_close(actual, expected, 1e-9)


@each_set
def test_no_move_leaves_every_bit_in_place(mirror: Any) -> None:
    point = POINTS[mirror]
    assert torch.equal(make_chart(mirror, point).moved(torch.zeros_like(point)), point)


def test_dual_steps_beyond_the_domain_are_continued_smoothly() -> None:
    chart = make_chart("positive-definite", torch.eye(1, dtype=torch.float64))

    def moved(value: float) -> float:
        return chart.moved(torch.tensor([[value]], dtype=torch.float64)).item()

    assert moved(0.25) == pytest.approx(1 / 0.75, rel=1e-13)
    assert moved(-3.0) == pytest.approx(1 / 4, rel=1e-13)
    assert moved(0.5 + 1e-7) - moved(0.5 - 1e-7) == pytest.approx(4 * 2e-7, rel=1e-5)
    assert moved(1.0) == pytest.approx(2 * torch.tensor(1.0).double().exp().item(), rel=1e-13)


BAD_START = {
    "nonnegative": [0.0, 1.0],
    "simplex": [0.5, 0.6],
    BOX: [0.0, 2.0],
    "positive-definite": [[1.0, 0.0], [0.0, -1.0]],
}


@each_set
def test_infeasible_parameters_are_refused(mirror: Any) -> None:
    x, y = leaf(BAD_START[mirror]), leaf([0.0])
    with pytest.raises(ValueError, match=r"`mirror`.*strictly inside its set"):
        CGD([x], [y], mirror=(mirror, "euclidean"))
    optimizer = CGD([y], [leaf([0.0])])
    with pytest.raises(ValueError, match=r"`mirror`.*strictly inside its set"):
        optimizer.add_param_group({"params": [x], "player": "max", "mirror": mirror})
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize(
    ("mirror", "values", "dtype", "match"),
    [
        ("nonnegative", [1.0, 2.0], torch.bfloat16, "float32 or float64, got torch.bfloat16"),
        ("positive-definite", [1.0, 2.0], torch.float64, r"square matrices.*\(2,\)"),
        ("positive-definite", [[1.0, 0.5], [0.0, 1.0]], torch.float64, "strictly inside"),
        ("simplex", 1.0, torch.float64, "without dimensions"),
        ("nonnegative", [float("inf")], torch.float64, "strictly inside"),
    ],
)
def test_parameters_that_do_not_fit(
    mirror: Any, values: Any, dtype: torch.dtype, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        check_feasible(mirror, torch.tensor(values, dtype=dtype))


@each_set
def test_other_options_that_a_set_refuses(mirror: Any) -> None:
    x, y = leaf(POINTS[mirror]), leaf([0.0])
    with pytest.raises(ValueError, match="`weight_decay` must be 0"):
        CGD([x], [y], mirror=(mirror, "euclidean"), weight_decay=0.1)
    if mirror == "positive-definite":
        solver = GMRES(rtol=0.0, max_iter=2)
        with pytest.raises(ValueError, match="`capturable` forbids `mirror`"):
            CGD([x], [y], mirror=(mirror, "euclidean"), capturable=True, solver=solver)


@each_set
def test_parameters_taken_outside_do_not_move(mirror: Any) -> None:
    if mirror == "simplex":
        bad = torch.tensor([[0.5, -0.3, 0.8], [0.1, 0.1, 0.8]], dtype=torch.float64)
    elif mirror == "positive-definite":
        bad = torch.diag(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64))
    else:
        bad = torch.full((3,), -5.0, dtype=torch.float64)
    x, y, loss = game_of(mirror)
    optimizer = CGD([x], [y], lr=0.1, mirror=(mirror, "euclidean"))
    with torch.no_grad():
        x.copy_(bad)
    before = snapshot(optimizer)
    with pytest.warns(StepWarning, match="not taken"):
        optimizer.step(loss())
    assert_same_bits(snapshot(optimizer), before)


@each_set
def test_two_phase_form_with_a_penalty(mirror: Any) -> None:
    ends = []
    for two_phases in (False, True):
        x, y, loss = game_of(mirror)
        optimizer = ACGD([x], [y], lr=0.01, mirror=(mirror, "euclidean"), max_grad_norm=0.5)
        for _ in range(3):
            if two_phases:
                optimizer.backward(loss(), min_penalty=x.square().sum())
                optimizer.step()
            else:
                optimizer.step(loss(), min_penalty=x.square().sum())
        ends.append(snapshot(optimizer))
    assert_same_bits(*ends)


@each_set
def test_state_dict_resumes_bit_for_bit(mirror: Any) -> None:
    x, y, loss = game_of(mirror)
    options = {"lr": 0.02, "mirror": (mirror, "euclidean"), "warm_start": True}
    optimizer = ACGD([x], [y], **options)
    for _ in range(3):
        optimizer.step(loss())
    twin_x, twin_y, twin_loss = game_of(mirror)
    with torch.no_grad():
        twin_x.copy_(x)
        twin_y.copy_(y)
    twin = ACGD([twin_x], [twin_y], **options)
    twin.load_state_dict(optimizer.state_dict())
    assert twin.param_groups[0]["mirror"] == mirror
    for _ in range(3):
        optimizer.step(loss())
        twin.step(twin_loss())
    assert_same_bits(snapshot(twin), snapshot(optimizer))
