"""The kernels of the conjugate gradient iteration, interpreted strictly, against float64."""

import math

import pytest
import torch
from covering import pairwise
from kernel_checks import FP32, ORDERS, SIZES_AND_DTYPES, assert_accurate, nan_empty, vector
from strict_interpreter import strict

from compopt.kernels import (
    CGState,
    cg_direction_,
    cg_scalars_,
    cg_update_,
    partial_dot,
    use_backend,
)
from compopt.kernels.cg import host, reference

ALL_SIZES = pytest.mark.parametrize(("n", "dtype"), SIZES_AND_DTYPES, ids=str)


def state_of(gamma, dtype):
    return CGState(torch.tensor(gamma, dtype=torch.promote_types(dtype, torch.float32)))


@pytest.fixture(autouse=True)
def _unwritten_memory(monkeypatch):
    monkeypatch.setattr(torch, "empty", nan_empty)


@pytest.fixture(autouse=True)
def _triton():
    with use_backend("triton"):
        yield


@ALL_SIZES
def test_partial_dot(n, dtype):
    a, b = vector(n, dtype), vector(n, dtype)
    with strict() as run:
        partials = partial_dot(a, b)
    assert run.launches == ["partial_dot_kernel"]
    scale = float(a.double().norm() * b.double().norm())
    error = abs(float(partials.double().sum()) - float(a.double() @ b.double()))
    assert error <= scale * (1e-15 if dtype == torch.float64 else 2e-7)


@pytest.mark.parametrize(
    ("n", "dtype", "m"),
    [
        *((*at, 2000) for at in SIZES_AND_DTYPES),
        *((n, FP32, m) for n in (0, 63, 1000) for m in (None, 63)),
    ],
    ids=str,
)
def test_update(n, m, dtype):
    x, r, p, q = (vector(n, dtype) for _ in range(4))
    y, t = (None, None) if m is None else (vector(m, dtype), vector(m, dtype))
    state = state_of(2.0, dtype)
    curvature = torch.tensor([1.0, 2.0], dtype=state.values.dtype)
    truth = [v.double() + 2 / 3 * d.double() for v, d in ((x, p), (r, -q))]
    inner = None if m is None else y.double() + 2 / 3 * t.double()
    with strict():
        square = cg_update_(x, y, r, p, t, q, curvature, state)
    assert_accurate(x, truth[0])
    assert_accurate(r, truth[1])
    if m is not None:
        assert_accurate(y, inner)
    # Of the residual as it was rounded.
    assert_accurate(square.double().sum(), r.double().square().sum(), dtype=square.dtype)


@ALL_SIZES
def test_update_without_a_residual(n, dtype):
    x, y, p, t = (vector(n, dtype) for _ in range(4))
    state = state_of(2.0, dtype)
    truth = x.double() + p.double()
    curvature = torch.tensor([2.0], dtype=state.values.dtype)
    with strict():
        assert cg_update_(x, y, None, p, t, None, curvature, state) is None
    assert_accurate(x, truth)


@ALL_SIZES
def test_direction(n, dtype):
    p, r = vector(n, dtype), vector(n, dtype)
    state = state_of(2.0, dtype)
    state.values[1:3] = torch.tensor([0.5, 0.3])
    truth = r.double() + state.values[2].double() * p.double()
    with strict():
        cg_direction_(p, r, state)
    assert_accurate(p, truth)


SCALARS = {
    "usual": ([0.5, 1.0], [0.25, 0.5]),
    "long step": ([0.5], [0.001]),
    "no progress": ([0.5], [7.0]),
    "no curvature": ([0.0], [0.25]),
    "negative curvature": ([-0.5], [0.25]),
    "curvature is not finite": ([math.nan], [0.25]),
    "residual is not finite": ([0.5], [math.inf]),
    "predicted": ([0.5], None),
    "exact": ([0.5], [0.0]),
}


@pairwise(
    case=list(SCALARS),
    seen={"first": math.nan, "later": 0.5},
    dtype=[torch.float32, torch.float64],
)
def test_scalars_are_those_of_torch(case, seen, dtype):
    curvature, square = SCALARS[case]
    curvature = torch.tensor(curvature, dtype=dtype)
    square = None if square is None else torch.tensor(square, dtype=dtype)
    ours, plain = (state_of(1.0, dtype) for _ in range(2))
    for state in (ours, plain):
        state.values[3] = seen
    for _ in range(2):
        with strict():
            cg_scalars_(ours, curvature, square)
        reference.cg_scalars_(plain, curvature, square)
        torch.testing.assert_close(
            ours.values, plain.values, rtol=1e-15 if dtype == torch.float64 else 2e-7, atol=0,
            equal_nan=True,
        )  # fmt: skip
        assert bool(ours.breakdown) == bool(plain.breakdown)


@pytest.mark.parametrize("case", SCALARS)
def test_scalars_on_the_host_are_those_of_torch(case):
    curvature, square = SCALARS[case]
    number = None if square is None else sum(square)
    ours, plain = host.CGState(1.0), state_of(1.0, torch.float64)
    partials = [
        None if given is None else torch.tensor(given, dtype=torch.float64)
        for given in SCALARS[case]
    ]
    for seen in (math.nan, 0.5):
        ours.worst_fall = plain.values[3] = seen
        for _ in range(2):
            x, p, q = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
            host.cg_update_(x, None, x, p, None, q, sum(curvature), ours)
            host.cg_scalars_(ours, sum(curvature), number)
            reference.cg_scalars_(plain, *partials)
            found = (
                ours.gamma,
                ours.alpha,
                ours.beta,
                ours.worst_fall,
                ours.breakdown,
                ours.finite,
            )
            assert found == pytest.approx(plain.values[:6].tolist(), rel=1e-15, nan_ok=True)


@pytest.mark.parametrize("why", ["solved", "breakdown", "not finite"])
def test_a_frozen_system_stays_bit_by_bit(why):
    gamma = 0.0 if why == "solved" else 2.0
    state = state_of(gamma, torch.float32)
    curvature = torch.tensor([{"breakdown": -1.0, "not finite": math.nan}.get(why, 1.0)])
    vectors = [vector(1500, torch.float32) for _ in range(6)]
    x, y, r, p, t, q = vectors
    # What a failed product leaves behind must not spread.
    q[3], t[5] = math.nan, math.inf
    before = [v.clone() for v in (x, y, r)]
    for _ in range(3):
        with strict():
            square = cg_update_(x, y, r, p, t, q, curvature, state)
            cg_scalars_(state, curvature, square)
    for now, then in zip((x, y, r), before, strict=True):
        assert torch.equal(now, then)
    assert float(state.gamma) == gamma
    assert float(state.num_iter) == 0


@pytest.mark.parametrize("n", [1000, 2**13 + 1])
def test_results_repeat_bit_by_bit_in_any_order_of_programs(n):
    results = []
    for order in ORDERS:
        torch.manual_seed(0)
        x, y, r, p, t, q = (vector(n, torch.float32) for _ in range(6))
        state = state_of(2.0, torch.float32)
        with strict(order=order):
            curvature = partial_dot(p, p)
            square = cg_update_(x, y, r, p, t, q, curvature, state)
            cg_scalars_(state, curvature, square)
            cg_direction_(p, r, state)
        results.append(torch.cat([x, y, r, p, square, state.values.nan_to_num()]))
    assert all(torch.equal(result, results[0]) for result in results)


def test_an_iteration_agrees_with_torch():
    n = 300
    matrix = torch.randn(n, n, dtype=torch.float64)
    matrix = torch.eye(n, dtype=torch.float64) + matrix @ matrix.T / n
    rhs = torch.randn(n, dtype=torch.float64)
    solutions = {}
    for backend in ("triton", "torch"):
        x, r, p = torch.zeros_like(rhs), rhs.clone(), rhs.clone()
        state = CGState(rhs @ rhs)
        with use_backend(backend), strict():
            for _ in range(12):
                q = matrix @ p
                curvature = partial_dot(p, q)
                square = cg_update_(x, None, r, p, None, q, curvature, state)
                cg_scalars_(state, curvature, square)
                cg_direction_(p, r, state)
        solutions[backend] = x
        assert float(state.num_iter) == 12
    assert_accurate(solutions["triton"], solutions["torch"], rtol=1e-12)
    assert_accurate(solutions["triton"], torch.linalg.solve(matrix, rhs), rtol=1e-4)
