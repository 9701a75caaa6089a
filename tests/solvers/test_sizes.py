"""Systems of any size that their dtype holds: the same iterations as at size one."""

import math

import pytest
import torch
from covering import one_each, pairwise
from dense import assert_close
from matrix_gram import MatrixGram

from compopt import GMRES, ConjugateGradient, DirectSolver
from compopt.kernels import use_backend
from compopt.operators import MatrixOperator
from compopt.solvers import Status, solve_coupled

# Powers of two, which spoil no digit: those near 1e-25, 1e20, 1e-200 and 1e155 among them.
SIZES = [
    *((torch.float32, exponent) for exponent in (-83, -60, 40, 66, 110)),
    *((torch.float64, exponent) for exponent in (-800, -664, 515, 900)),
]

CG = {
    "tolerance": ConjugateGradient(rtol=1e-4, max_iter=50),
    "predicted": ConjugateGradient(rtol=3e-2, max_iter=50),
    "computed": ConjugateGradient(rtol=1e-4, max_iter=50, check_last=True),
    "fixed": ConjugateGradient(rtol=0.0, max_iter=4),
    "too few": ConjugateGradient(rtol=1e-6, max_iter=2),
}
OTHERS = {
    "gmres": GMRES(rtol=1e-4, max_iter=50),
    "gmres restarted": GMRES(rtol=1e-4, max_iter=50, restart=3),
    "gmres fixed": GMRES(rtol=0.0, max_iter=6, restart=4),
    "direct": DirectSolver(),
}
GUESSES = {"cold": None, "warm": 1.0, "close": 0.01}


def numbers(n, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=generator, dtype=torch.float64).to(dtype)


def coupled_operator(dtype):
    weights = torch.linspace(0, 0.5, 5, dtype=dtype)
    return MatrixGram(0.7 * numbers(40, 1, dtype).view(8, 5), weights)


def plain_operator(dtype):
    factor = numbers(64, 2, torch.float64).view(8, 8)
    matrix = torch.eye(8, dtype=torch.float64) + factor @ factor.T / 8
    return MatrixOperator(matrix.to(dtype), positive_definite=True)


def solve(solver, dtype, size, *, is_coupled, guess, operator=None):
    """Return the solution of a system with ``size`` times the same right-hand sides."""
    operator = operator or (coupled_operator if is_coupled else plain_operator)(dtype)
    rhs, coupled = numbers(8, 3, dtype), numbers(5, 4, dtype)
    x0 = None
    if guess is not None:
        exact = torch.linalg.solve(operator.to_dense(), rhs)
        if is_coupled:
            exact -= torch.linalg.solve(
                operator.to_dense(), operator.matrix @ (operator.weights * coupled)
            )
        x0 = (exact + guess * numbers(8, 5, dtype)) * size
    if is_coupled:
        return solve_coupled(solver, operator, rhs * size, coupled * size, x0=x0)
    return solver.solve(operator, rhs * size, x0)


def assert_same_but_for_size(large, one, size):
    assert large.num_iter == one.num_iter
    assert large.status is one.status
    assert large.is_predicted == one.is_predicted
    assert torch.equal(large.value, one.value * size)
    if one.inner_value is not None:
        assert torch.equal(large.inner_value, one.inner_value * size)
    for name in ("residual_norm", "rhs_norm", "value_norm"):
        if getattr(one, name) is not None:
            assert torch.equal(getattr(large, name), getattr(one, name) * size)


@pairwise(
    is_coupled={"alone": False, "coupled": True},
    guess=GUESSES,
    solver={**CG, **OTHERS},
    at=[SIZES[0], SIZES[3], SIZES[6], SIZES[8]],
)
def test_a_multiple_of_a_system_is_solved_by_the_same_operations(is_coupled, guess, solver, at):
    dtype, size = at[0], 2.0 ** at[1]
    one = solve(solver, dtype, 1.0, is_coupled=is_coupled, guess=guess)
    large = solve(solver, dtype, size, is_coupled=is_coupled, guess=guess)
    assert one.status in (Status.CONVERGED, Status.MAX_ITER)
    assert_same_but_for_size(large, one, size)


@pytest.mark.parametrize("size", [1e-25, 1e20], ids=str)
@pytest.mark.parametrize(("solver", "guess"), one_each(CG, GUESSES))
def test_kernels_agree_with_torch_at_any_size(guess, solver, size):
    plain = solve(solver, torch.float32, size, is_coupled=True, guess=guess)
    with use_backend("triton"):
        ours = solve(solver, torch.float32, size, is_coupled=True, guess=guess)
    assert (ours.num_iter, ours.status) == (plain.num_iter, plain.status)
    torch.testing.assert_close(ours.value, plain.value, rtol=1e-4, atol=1e-5 * size)
    torch.testing.assert_close(ours.inner_value, plain.inner_value, rtol=1e-4, atol=1e-5 * size)


@pytest.mark.parametrize(("solver", "at"), one_each(OTHERS, SIZES))
def test_an_operator_may_be_of_any_size(solver, at):
    dtype, size = at[0], 2.0 ** at[1]
    matrix = plain_operator(dtype).matrix + 0.3 * numbers(64, 6, dtype).view(8, 8)
    rhs = numbers(8, 7, dtype)
    one = solver.solve(MatrixOperator(matrix), rhs)
    large = solver.solve(MatrixOperator(matrix * size), rhs)
    assert one.status in (Status.CONVERGED, Status.MAX_ITER)
    assert (large.num_iter, large.status) == (one.num_iter, one.status)
    assert torch.equal(large.value, one.value / size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("exponent", [-60, 60])
def test_conjugate_gradients_take_large_and_small_operators(dtype, exponent):
    operator, rhs = plain_operator(dtype), numbers(8, 7, dtype)
    scaled = MatrixOperator(operator.matrix * 2.0**exponent, positive_definite=True)
    solver = ConjugateGradient(rtol=1e-4)
    one, large = solver.solve(operator, rhs), solver.solve(scaled, rhs)
    assert (large.num_iter, large.status) == (one.num_iter, Status.CONVERGED)
    assert torch.equal(large.value, one.value * 2.0**-exponent)


@pytest.mark.parametrize("is_coupled", [False, True], ids=["alone", "coupled"])
@pytest.mark.parametrize(("solver", "guess"), one_each({**CG, **OTHERS}, GUESSES))
def test_a_zero_right_hand_side_is_solved_at_once(is_coupled, guess, solver):
    operator = (coupled_operator if is_coupled else plain_operator)(torch.float32)
    rhs, coupled = torch.zeros(8), torch.zeros(5)
    x0 = None if guess is None else torch.ones(8)
    if is_coupled:
        solution = solve_coupled(solver, operator, rhs, coupled, x0=x0)
    else:
        solution = solver.solve(operator, rhs, x0)
    assert solution.status is Status.CONVERGED
    assert not solution.value.any()
    assert solution.num_iter == (solver.max_iter if getattr(solver, "rtol", 1) == 0 else 0)
    assert float(solution.residual_norm) == float(solution.rhs_norm) == 0.0


@pytest.mark.parametrize("size", [1e-40, 1e-44])
def test_numbers_below_the_normal_ones(size):
    operator = plain_operator(torch.float32)
    rhs = numbers(8, 3, torch.float32) * size
    truth = torch.linalg.solve(operator.matrix.double(), rhs.double())
    for solver in (ConjugateGradient(rtol=1e-4), GMRES(rtol=1e-4), DirectSolver()):
        solution = solver.solve(operator, rhs)
        assert solution.status is Status.CONVERGED
        assert torch.all((solution.value.double() - truth).abs() <= 1e-4 * size + 2e-45)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("exponent", [-12, 0, 11])
def test_conjugate_gradients_in_half_precision(dtype, exponent):
    operator = plain_operator(torch.float64)
    half = MatrixOperator(operator.matrix.to(dtype), positive_definite=True)
    rhs = (numbers(8, 3, torch.float64) * 2.0**exponent).to(dtype)
    for x0 in (None, rhs / 2):
        solution = ConjugateGradient(rtol=5e-2).solve(half, rhs, x0)
        assert solution.status is Status.CONVERGED
        assert solution.residual_norm.dtype == torch.float32
        # Digits of half precision besides the tolerance.
        assert_close(operator.matrix @ solution.value.double(), rhs.double(), 6e-2)


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize(("solver", "guess"), one_each({**CG, **OTHERS}, GUESSES))
def test_what_is_not_finite_is_told_at_any_size(guess, solver, bad):
    operator = plain_operator(torch.float32)
    rhs = numbers(8, 3, torch.float32) * 1e20
    rhs[2] = bad
    x0 = None if guess is None else torch.zeros(8)
    solution = solver.solve(operator, rhs, x0)
    assert solution.status is Status.NON_FINITE
