"""GMRES against dense solves and against SciPy's."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from covering import pairwise
from games import GeneralGame
from matrix_gram import MatrixGram
from torch import Tensor

from compopt import GMRES
from compopt.derivatives import differentiate
from compopt.game import ManyPlayers
from compopt.operators import MatrixOperator, PolymatrixOperator
from compopt.solvers import Status, solve_coupled


def system(size: int, seed: int, dominance: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return an unsymmetric matrix around the identity, and a right-hand side."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    rhs = torch.randn(size, generator=generator, dtype=torch.float64)
    return torch.eye(size, dtype=torch.float64) + dominance * noise, rhs


class Counting(MatrixOperator):
    num_products = 0

    def matvec(self, vector: Tensor) -> Tensor:
        self.num_products += 1
        return super().matvec(vector)


@pairwise(size=[1, 2, 10, 40], dominance=[0.3, 3.0], seed=range(3))
def test_full_gmres_is_the_dense_solution(size: int, dominance: float, seed: int) -> None:
    matrix, rhs = system(size, seed, dominance)
    kept = rhs.clone()
    solution = GMRES(rtol=1e-12, max_iter=size + 2, restart=size + 2).solve(
        MatrixOperator(matrix), rhs
    )
    assert solution.status is Status.CONVERGED
    assert solution.num_iter <= size
    exact = torch.linalg.solve(matrix, rhs)
    assert (solution.value - exact).norm() <= 1e-9 * exact.norm()
    true = (rhs - matrix @ solution.value).norm()
    assert abs(solution.residual_norm - true) <= 1e-14 * rhs.norm()
    assert torch.equal(rhs, kept)


@pytest.mark.parametrize("restart", [3, 7, 50])
@pytest.mark.parametrize("seed", range(2))
def test_iterates_are_those_of_scipy(seed: int, restart: int) -> None:
    """After the same number of whole cycles, and from the same first guess."""
    matrix, rhs = system(50, seed, 0.5)
    x0 = torch.linspace(-1, 1, 50, dtype=torch.float64)
    for cycles in (1, 2, 4):
        ours = GMRES(rtol=0.0, max_iter=restart * cycles, restart=restart).solve(
            MatrixOperator(matrix), rhs, x0
        )
        theirs, _ = scipy.sparse.linalg.gmres(
            matrix.numpy(), rhs.numpy(), x0=x0.numpy(), rtol=0.0, restart=restart, maxiter=cycles
        )
        np.testing.assert_allclose(ours.value.numpy(), theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("restart", [2, 4, 12])
@pytest.mark.parametrize("seed", range(2))
def test_steps_of_random_general_sum_games_are_those_of_scipy(seed: int, restart: int) -> None:
    game = GeneralGame(seed)
    derivatives = differentiate(ManyPlayers(game.losses()), {0: [game.x], 1: [game.y]})
    sizes = {0: torch.linspace(0.1, 0.4, 4), 1: torch.linspace(0.5, 0.2, 3)}
    operator = PolymatrixOperator(
        derivatives, {p: size.double().sqrt() for p, size in sizes.items()}
    )
    rhs = operator.scale * operator.join(derivatives.grads)
    for cycles in (1, 3):
        solver = GMRES(rtol=0.0, max_iter=restart * cycles, restart=restart)
        theirs, _ = scipy.sparse.linalg.gmres(
            operator.to_scipy(), rhs.numpy(), rtol=0.0, restart=restart, maxiter=cycles
        )
        ours = solver.solve(operator, rhs).value.numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rtol", [1e-1, 1e-3, 1e-8])
def test_tolerance_is_met_and_not_much_more(rtol: float) -> None:
    matrix, rhs = system(60, 0, 0.4)
    solution = GMRES(rtol=rtol, max_iter=200, restart=10).solve(MatrixOperator(matrix), rhs)
    assert solution.status is Status.CONVERGED
    relative = (solution.residual_norm / rhs.norm()).item()
    assert 1e-3 * rtol < relative <= rtol


def test_cost() -> None:
    """A product per iteration, one between cycles for the residual, one for a first guess."""
    matrix, rhs = system(30, 1, 0.5)
    for x0 in (None, rhs):
        operator = Counting(matrix)
        solution = GMRES(rtol=0.0, max_iter=12, restart=5).solve(operator, rhs, x0)
        assert solution.num_iter == 12
        assert operator.num_products == 12 + 2 + (x0 is not None)


def test_a_last_residual_is_computed_where_it_is_asked_for() -> None:
    matrix, rhs = system(30, 1, 0.5)
    for rtol, max_iter in ((1e-3, 50), (0.0, 12)):
        found = {}
        for check_last in (False, True):
            operator = Counting(matrix)
            solver = GMRES(rtol=rtol, max_iter=max_iter, restart=8, check_last=check_last)
            found[check_last] = solver.solve(operator, rhs), operator.num_products
        (quick, fewer), (careful, more) = found[False], found[True]
        assert more == fewer + 1
        assert torch.equal(quick.value, careful.value)
        true = (rhs - matrix @ careful.value).norm()
        for solution in (quick, careful):
            torch.testing.assert_close(solution.residual_norm, true, rtol=1e-9, atol=0)


@pytest.mark.parametrize("guess", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("restart", [2, 20])
def test_the_inner_half_costs_no_product_of_its_own(restart: int, guess: bool) -> None:
    weights = torch.linspace(0.0, 0.5, 5, dtype=torch.float64)
    operator = MatrixGram(0.5 * torch.randn(8, 5, dtype=torch.float64), weights)
    rhs, inner_rhs = torch.randn(8, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    x0 = torch.randn(8, dtype=torch.float64) if guess else None
    solver = GMRES(rtol=1e-9, max_iter=60, restart=restart)
    solution = solve_coupled(solver, operator, rhs, inner_rhs, x0=x0)
    assert solution.status is Status.CONVERGED
    between = -(-solution.num_iter // restart) - 1
    assert operator.num_products == 1 + 2 * (solution.num_iter + between + guess)
    y = weights * (inner_rhs + operator.matrix.T @ solution.value)
    torch.testing.assert_close(solution.inner_value, y, rtol=1e-12, atol=1e-12)
    residual = rhs - operator.matrix @ y - solution.value
    assert residual.norm() <= 2e-9 * rhs.norm()


def test_the_inner_half_leaves_out_a_cycle_that_is_not_taken() -> None:
    weights = torch.linspace(0.0, 0.5, 5, dtype=torch.float64)
    operator = MatrixGram(0.5 * torch.randn(8, 5, dtype=torch.float64), weights)
    rhs, inner_rhs = torch.randn(8, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    # It breaks in the second cycle.
    factor = operator.factor
    operator.factor = lambda inner, out=None: factor(inner, out).mul_(
        torch.nan if operator.num_products > 8 else 1.0
    )
    solver = GMRES(rtol=0.0, max_iter=4, restart=2)
    solution = solve_coupled(solver, operator, rhs, inner_rhs)
    assert solution.status is Status.NON_FINITE
    y = weights * (inner_rhs + operator.matrix.T @ solution.value)
    torch.testing.assert_close(solution.inner_value, y, rtol=1e-12, atol=1e-12)


def test_exact_first_guess_needs_no_iteration_and_stays() -> None:
    matrix, rhs = system(20, 2)
    exact = torch.linalg.solve(matrix, rhs)
    kept = exact.clone()
    solution = GMRES(rtol=1e-10).solve(MatrixOperator(matrix), rhs, exact)
    assert solution.num_iter == 0
    assert torch.equal(solution.value, kept)
    assert solution.value is not exact


def test_zero_right_hand_side() -> None:
    matrix, rhs = system(5, 3)
    for rtol in (1e-6, 0.0):
        solution = GMRES(rtol=rtol, max_iter=3).solve(MatrixOperator(matrix), 0 * rhs)
        assert solution.status is Status.CONVERGED
        assert torch.equal(solution.value, 0 * rhs)


def test_exhausted_krylov_space_changes_nothing() -> None:
    """The solution is found in two iterations; with a fixed count more are made."""
    matrix = torch.diag(torch.tensor([2.0, 2, 5, 5], dtype=torch.float64))
    rhs = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)
    solution = GMRES(rtol=0.0, max_iter=9, restart=6).solve(MatrixOperator(matrix), rhs)
    torch.testing.assert_close(solution.value, rhs / torch.diagonal(matrix), rtol=1e-12, atol=0)


def test_stagnation_ends_and_is_told() -> None:
    """A cyclic shift gives GMRES nothing before its last iteration."""
    matrix = torch.eye(6, dtype=torch.float64).roll(1, 0)
    rhs = torch.eye(6, dtype=torch.float64)[0]
    solution = GMRES(rtol=1e-8, max_iter=100, restart=5).solve(MatrixOperator(matrix), rhs)
    assert solution.status is Status.STAGNATED
    assert solution.num_iter == 5
    assert torch.isfinite(solution.value).all()
    whole = GMRES(rtol=1e-8, max_iter=100, restart=6).solve(MatrixOperator(matrix), rhs)
    assert whole.status is Status.CONVERGED
    # Too few iterations are not a whole cycle without progress.
    few = GMRES(rtol=1e-8, max_iter=5, restart=6).solve(MatrixOperator(matrix), rhs)
    assert few.status is Status.MAX_ITER


@pytest.mark.parametrize("restart", [3, 20])
def test_a_tolerance_beyond_the_digits_of_the_dtype_is_stagnation(restart: int) -> None:
    matrix, rhs = (part.float() for part in system(20, 5, 0.3))
    solution = GMRES(rtol=1e-12, max_iter=500, restart=restart).solve(MatrixOperator(matrix), rhs)
    assert solution.status is Status.STAGNATED
    assert solution.num_iter < 500
    assert solution.residual_norm <= 1e-5 * rhs.norm()
    assert "restart" in solution.status.sentence


@pytest.mark.parametrize("rtol", [1e-6, 0.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["rhs", "matrix"])
def test_values_that_are_not_finite_end_the_solve(where: str, value: float, rtol: float) -> None:
    matrix, rhs = system(5, 4)
    (matrix if where == "matrix" else rhs).view(-1)[3] = value
    solution = GMRES(rtol=rtol, max_iter=8, restart=3).solve(MatrixOperator(matrix), rhs)
    assert solution.status is Status.NON_FINITE
    assert torch.isfinite(solution.value).all()


def test_fixed_count_reads_no_value() -> None:
    matrix = torch.empty(6, 6, device="meta")
    solution = GMRES(rtol=0.0, max_iter=5, restart=2).solve(
        MatrixOperator(matrix), torch.empty(6, device="meta")
    )
    assert solution.value.shape == (6,)


@pytest.mark.parametrize(
    "kwargs",
    [{"rtol": -1.0}, {"atol": float("nan")}, {"max_iter": -1}, {"restart": 0}],
    ids=lambda kwargs: next(iter(kwargs)),
)
def test_bad_arguments(kwargs: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(kwargs))}`"):
        GMRES(**kwargs)
