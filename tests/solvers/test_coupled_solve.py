"""Solves of both halves of a coupled system, against the joint matrix."""

import math

import pytest
import torch
from covering import pairwise
from dense import assert_close
from matrix_gram import MatrixGram

from compopt import ConjugateGradient, DirectSolver
from compopt.operators import MatrixOperator
from compopt.solvers import Status, solve_coupled


def coupled_system(strength: float):
    # A weight of zero is a player whose learning rate is zero.
    weights = torch.tensor([0.0, 0.2, 0.5, 1.0, 2.0], dtype=torch.float64)
    operator = MatrixGram(strength * torch.randn(8, 5, dtype=torch.float64), weights)
    rhs, coupled = torch.randn(8, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    f, h = operator.matrix, torch.diag(weights)
    joint = torch.cat(
        [
            torch.cat([torch.eye(8, dtype=torch.float64), f], dim=1),
            torch.cat([-h @ f.T, torch.eye(5, dtype=torch.float64)], dim=1),
        ]
    )
    truth = torch.linalg.solve(joint, torch.cat([rhs, h @ coupled]))
    return operator, rhs, coupled, truth[:8], truth[8:]


@pairwise(
    strength=[0.0, 0.1, 1.0, 30.0], guess={"cold": False, "warm": True}, solver=["cg", "direct"]
)
def test_coupled_solve_is_that_of_the_joint_matrix(strength, guess, solver):
    operator, rhs, coupled, x, y = coupled_system(strength)
    x0 = torch.randn_like(rhs) if guess else None
    how = {"cg": ConjugateGradient(rtol=1e-12, max_iter=100), "direct": DirectSolver()}[solver]
    before = rhs.clone(), coupled.clone()
    solution = solve_coupled(how, operator, rhs.clone(), coupled, x0=x0)
    assert solution.status is Status.CONVERGED
    assert_close(solution.value, x, 1e-9)
    assert_close(solution.inner_value, y, 1e-9)
    assert torch.equal(rhs, before[0])
    assert torch.equal(coupled, before[1])


@pytest.mark.parametrize("guess", [False, True], ids=["cold", "warm"])
def test_scalars_of_the_host_are_those_of_a_device(guess):
    operator, rhs, coupled, _, _ = coupled_system(0.3)
    x0 = torch.randn_like(rhs) if guess else None
    alone = MatrixOperator(operator.to_dense(), positive_definite=True)
    options = ({"rtol": 1e-2}, {"rtol": 0.0, "max_iter": 2}, {"rtol": 0.0, "atol": 1e-6})
    for solver in (
        ConjugateGradient(**each, check_last=c) for each in options for c in (False, True)
    ):
        found = []
        for on_host in (True, False):
            operator.is_on_host = alone.is_on_host = on_host
            found += [solve_coupled(solver, operator, rhs.clone(), coupled, x0=x0)]
            found += [solver.solve(alone, rhs, x0)]
        for here, there in zip(found[:2], found[2:], strict=True):
            assert (here.status, here.num_iter) == (there.status, there.num_iter)
            assert here.is_predicted == there.is_predicted
            assert_close(here.value, there.value, 1e-13)
            for name in ("residual_norm", "rhs_norm"):
                pair = [getattr(each, name) for each in (here, there)]
                torch.testing.assert_close(*pair, rtol=1e-6, atol=0.0, equal_nan=True)


@pairwise(
    guess={"cold": False, "warm": True},
    check_last={"predicted": False, "computed": True},
    how=[{"rtol": 1e-2}, {"rtol": 1e-8}, {"rtol": 0.0, "max_iter": 3}],
)
def test_a_coupled_solve_costs_two_products_an_iteration_and_one_or_two_besides(
    guess, check_last, how
):
    operator, rhs, coupled, _, _ = coupled_system(0.1)
    x0 = torch.randn_like(rhs) if guess else None
    solver = ConjugateGradient(check_last=check_last, **how)
    solution = solve_coupled(solver, operator, rhs.clone(), coupled, x0=x0)
    assert solution.num_iter > 1
    assert solution.is_predicted == (not check_last)
    expected = 2 * solution.num_iter + (1 if guess else 0) + (1 if check_last else 0)
    assert operator.num_products == expected


@pytest.mark.parametrize("strength", [0.01, 0.1, 0.3, 1.0, 3.0, 30.0])
def test_a_predicted_residual_is_near_or_above_the_true_one(strength):
    excess = []
    for seed in range(100):
        torch.manual_seed(seed)
        operator, rhs, coupled, _, _ = coupled_system(strength)
        solution = solve_coupled(ConjugateGradient(rtol=1e-2), operator, rhs.clone(), coupled)
        reduced = rhs - operator.matrix @ operator.scale_inner(coupled)
        residual = (reduced - operator.to_dense() @ solution.value).norm()
        assert solution.status is Status.CONVERGED
        if solution.is_predicted:
            excess.append(float(residual / (1e-2 * reduced.norm())))
        else:
            assert abs(solution.residual_norm - residual) <= 1e-12 * reduced.norm()
    # Too strong to predict, or so weak that one iteration is enough.
    assert bool(excess) == (strength in (0.1, 0.3))
    if excess:
        assert torch.tensor(excess).quantile(0.9) < 1.0
        assert max(excess) < 4.0


def test_the_last_step_length_needs_no_second_product():
    operator, rhs, coupled, _, _ = coupled_system(0.3)
    fixed = {"rtol": 0.0, "max_iter": 3}
    short = solve_coupled(ConjugateGradient(**fixed), operator, rhs.clone(), coupled)
    full = solve_coupled(
        ConjugateGradient(**fixed, check_last=True), operator, rhs.clone(), coupled
    )
    assert_close(short.value, full.value, 1e-13)
    assert_close(short.inner_value, full.inner_value, 1e-13)


def test_a_residual_that_is_not_known_is_not_a_number():
    operator, rhs, coupled, _, _ = coupled_system(0.3)
    solver = ConjugateGradient(rtol=0.0, max_iter=1)
    assert solve_coupled(solver, operator, rhs.clone(), coupled).residual_norm.isnan()
    # Without a coupled half nothing is saved by not knowing it.
    alone = solver.solve(operator, rhs)
    assert_close(alone.residual_norm, (rhs - operator.to_dense() @ alone.value).norm(), 1e-13)


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
def test_a_product_that_is_not_finite_is_noticed_in_the_last_iteration(bad):
    operator, rhs, coupled, _, _ = coupled_system(0.3)
    response = operator.response
    operator.response = lambda vector, out=None: response(vector, out).mul_(bad)
    solver = ConjugateGradient(rtol=0.0, max_iter=1)
    assert solve_coupled(solver, operator, rhs.clone(), coupled).status is Status.NON_FINITE


@pytest.mark.parametrize("strength", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_warm_start_is_never_solved_more_loosely_than_asked(strength, seed):
    torch.manual_seed(seed)
    operator, rhs, coupled, x, _ = coupled_system(strength)
    reduced = rhs - operator.matrix @ operator.scale_inner(coupled)
    for noise in (0.0, 0.1, 3.0):
        x0 = x + noise * torch.randn_like(x)
        solver = ConjugateGradient(rtol=1e-2, max_iter=100, check_last=True)
        solution = solve_coupled(solver, operator, rhs.clone(), coupled, x0=x0)
        assert solution.status is Status.CONVERGED
        assert solution.rhs_norm <= reduced.norm() * (1 + 1e-12)
        residual = reduced - operator.to_dense() @ solution.value
        assert residual.norm() <= 1e-2 * reduced.norm() * (1 + 1e-9)


def test_a_warm_start_at_zero_is_a_cold_one():
    operator, rhs, coupled, _, _ = coupled_system(1.0)
    solver = ConjugateGradient(rtol=1e-8, max_iter=100)
    cold = solve_coupled(solver, operator, rhs.clone(), coupled)
    warm = solve_coupled(solver, operator, rhs.clone(), coupled, x0=torch.zeros_like(rhs))
    assert warm.status is Status.CONVERGED
    assert_close(warm.value, cold.value, 1e-7)


@pytest.mark.parametrize("seed", [1008, 2270, 2371])
def test_what_stops_at_a_predicted_residual_has_converged(seed):
    """Here the last iterate gives a lower bound of the right-hand side than the one before."""
    torch.manual_seed(seed)
    operator, rhs, coupled, x, _ = coupled_system(0.3)
    x0 = x + torch.randn_like(x)
    solution = solve_coupled(ConjugateGradient(rtol=5e-2), operator, rhs.clone(), coupled, x0=x0)
    assert solution.is_predicted
    assert solution.status is Status.CONVERGED
    assert solution.residual_norm <= 5e-2 * solution.rhs_norm
    reduced = rhs - operator.matrix @ operator.scale_inner(coupled)
    assert solution.rhs_norm <= reduced.norm() * (1 + 1e-12)
