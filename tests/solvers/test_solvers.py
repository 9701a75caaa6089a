"""Solvers against dense factorizations, and every outcome they can have."""

import math

import pytest
import torch
from covering import pairwise
from dense import assert_close
from matrix_gram import MatrixGram

from compopt import GMRES, ConjugateGradient, DirectSolver
from compopt.operators import LinearOperator, MatrixOperator
from compopt.solvers import Status, solve_coupled


def spd_matrix(size: int, condition: float) -> torch.Tensor:
    """Return a symmetric positive definite matrix of the given condition number."""
    basis, _ = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))
    spectrum = torch.logspace(0, math.log10(condition), size, dtype=torch.float64)
    return basis @ torch.diag(spectrum) @ basis.T


def system(condition: float, size: int = 20):
    operator = MatrixOperator(spd_matrix(size, condition), positive_definite=True)
    return operator, torch.randn(size, dtype=torch.float64)


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e3, 1e6])
@pytest.mark.parametrize("guess", [False, True], ids=["cold", "warm"])
def test_solution_is_that_of_the_matrix(condition, guess):
    operator, rhs = system(condition)
    x0 = torch.randn_like(rhs) if guess else None
    before = rhs.clone(), None if x0 is None else x0.clone()
    solution = ConjugateGradient(rtol=1e-12, max_iter=2000).solve(operator, rhs, x0)
    assert solution.status is Status.CONVERGED
    assert_close(solution.value, torch.linalg.solve(operator.matrix, rhs), 1e-11 * condition)
    assert float(solution.residual_norm) <= 1e-12 * float(rhs.norm())
    assert torch.equal(rhs, before[0])
    assert x0 is None or torch.equal(x0, before[1])


@pytest.mark.parametrize("size", [1, 3, 20])
def test_exact_after_as_many_iterations_as_unknowns(size):
    operator, rhs = system(5.0, size)
    solution = ConjugateGradient(rtol=1e-10, max_iter=size).solve(operator, rhs)
    assert solution.status is Status.CONVERGED
    assert solution.num_iter <= size


def test_zero_right_hand_side():
    operator, rhs = system(10.0)
    solution = ConjugateGradient(rtol=1e-6).solve(operator, torch.zeros_like(rhs))
    assert solution.status is Status.CONVERGED
    assert solution.num_iter == 0
    assert not solution.value.any()


def test_exact_first_guess_is_returned_as_it_is():
    operator, rhs = system(10.0)
    x0 = torch.linalg.solve(operator.matrix, rhs)
    solution = ConjugateGradient(rtol=1e-10).solve(operator, rhs, x0)
    assert solution.num_iter == 0
    assert solution.status is Status.CONVERGED
    assert torch.equal(solution.value, x0)
    assert solution.value is not x0


def test_max_iter_zero_returns_the_first_guess():
    operator, rhs = system(10.0)
    x0 = torch.randn_like(rhs)
    solution = ConjugateGradient(max_iter=0).solve(operator, rhs, x0)
    assert solution.status is Status.MAX_ITER
    assert solution.num_iter == 0
    assert torch.equal(solution.value, x0)
    assert_close(solution.residual_norm, (rhs - operator.matrix @ x0).norm(), 1e-14)


def test_too_few_iterations_return_the_best_so_far():
    operator, rhs = system(1e4)
    solution = ConjugateGradient(rtol=1e-10, max_iter=3).solve(operator, rhs)
    assert solution.status is Status.MAX_ITER
    assert solution.num_iter == 3
    assert_close(solution.residual_norm, (rhs - operator.matrix @ solution.value).norm(), 1e-10)


def test_tolerances_are_on_norms_and_the_larger_one_counts():
    operator, rhs = system(1e3)
    norm = float(rhs.norm())
    loose = ConjugateGradient(rtol=1e-2, max_iter=99).solve(operator, rhs)
    tight = ConjugateGradient(rtol=1e-4, max_iter=99).solve(operator, rhs)
    absolute = ConjugateGradient(rtol=1e-9, atol=1e-2 * norm, max_iter=99).solve(operator, rhs)
    assert float(loose.residual_norm) <= 1e-2 * norm
    # Tighter than the squares of the norms would ask for.
    assert loose.num_iter < tight.num_iter
    assert absolute.num_iter == loose.num_iter


def test_breakdown_keeps_the_last_good_iterate():
    # The first direction has positive curvature, the second negative.
    matrix = torch.diag(torch.tensor([1.0, -0.5], dtype=torch.float64))
    operator = MatrixOperator(matrix, positive_definite=True)
    rhs = torch.tensor([2.0, 1.0], dtype=torch.float64)
    solution = ConjugateGradient(rtol=1e-10).solve(operator, rhs)
    assert solution.status is Status.BREAKDOWN
    assert torch.isfinite(solution.value).all()
    residual = (rhs - matrix @ solution.value).norm()
    assert_close(solution.residual_norm, residual, 1e-12)


def test_breakdown_at_once_returns_the_first_guess():
    operator = MatrixOperator(-torch.eye(2), positive_definite=True)
    solution = ConjugateGradient().solve(operator, torch.ones(2))
    assert solution.status is Status.BREAKDOWN
    assert not solution.value.any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=str)
def test_non_finite_right_hand_side(bad):
    operator, rhs = system(10.0)
    rhs[3] = bad
    solution = ConjugateGradient(rtol=1e-6).solve(operator, rhs)
    assert solution.status is Status.NON_FINITE
    assert solution.num_iter == 0


class _Failing(LinearOperator):
    """An operator whose product is not finite from the given product on."""

    is_positive_definite = True

    def __init__(self, matrix, first):
        super().__init__(matrix.shape[0], matrix.dtype, matrix.device)
        self.matrix = matrix
        self.first = first
        self.num_products = 0

    def matvec(self, vector):
        self.num_products += 1
        product = self.matrix @ vector
        return product * math.nan if self.num_products >= self.first else product


@pytest.mark.parametrize("first", [1, 2, 4])
def test_non_finite_product_keeps_the_last_good_iterate(first):
    matrix = spd_matrix(20, 100.0)
    rhs = torch.randn(20, dtype=torch.float64)
    solution = ConjugateGradient(rtol=1e-10).solve(_Failing(matrix, first), rhs)
    assert solution.status is Status.NON_FINITE
    good = ConjugateGradient(rtol=1e-10, max_iter=first - 1).solve(
        MatrixOperator(matrix, positive_definite=True), rhs
    )
    assert torch.equal(solution.value, good.value)


def test_fixed_count_makes_just_that_many_iterations_and_stays_at_the_solution():
    operator, rhs = system(5.0, size=3)
    fixed = ConjugateGradient(rtol=0.0, max_iter=30)
    assert fixed.has_fixed_count
    solution = fixed.solve(operator, rhs)
    assert solution.num_iter == 30
    assert_close(solution.value, torch.linalg.solve(operator.matrix, rhs), 1e-12)
    nothing = fixed.solve(operator, torch.zeros_like(rhs))
    assert not nothing.value.any()
    assert nothing.status is Status.CONVERGED


def test_no_value_is_read_with_a_fixed_count():
    # Reading a value of a meta tensor raises.
    operator = MatrixOperator(torch.eye(4, device="meta"), positive_definite=True)
    rhs = torch.ones(4, device="meta")
    solution = ConjugateGradient(rtol=0.0, max_iter=3).solve(operator, rhs)
    assert solution.value.device.type == "meta"
    with pytest.raises((RuntimeError, NotImplementedError)):
        ConjugateGradient(rtol=1e-2, max_iter=3).solve(operator, rhs)


def test_direct_solver_reports_a_singular_matrix():
    operator = MatrixOperator(torch.zeros(2, 2), positive_definite=True)
    assert DirectSolver().solve(operator, torch.ones(2)).status is Status.BREAKDOWN


def test_unsuitable_operators_and_shapes_are_refused():
    plain = MatrixOperator(torch.eye(2))
    declared = MatrixOperator(torch.eye(2), positive_definite=True)
    with pytest.raises(TypeError, match="symmetric positive definite"):
        ConjugateGradient().solve(plain, torch.ones(2))
    with pytest.raises(ValueError, match=r"`rhs` must have shape \(2,\), got \(3,\)"):
        ConjugateGradient().solve(declared, torch.ones(3))
    with pytest.raises(ValueError, match=r"`x0` must have shape \(2,\), got \(2, 1\)"):
        ConjugateGradient().solve(declared, torch.ones(2), torch.ones(2, 1))


SOLVERS = pytest.mark.parametrize("solver", [ConjugateGradient(), GMRES(), DirectSolver()], ids=str)


@pairwise(
    solver=[ConjugateGradient(), GMRES(), DirectSolver()],
    name=["rhs", "x0", "inner_rhs"],
    change={
        "float32": torch.Tensor.float,
        "int64": torch.Tensor.long,
        "complex64": torch.Tensor.cfloat,
        "meta": lambda part: part.to("meta"),
    },
)
def test_parts_of_another_dtype_or_device_are_refused(change, name, solver):
    operator = MatrixGram(torch.ones(3, 2, dtype=torch.float64), torch.ones(2).double())
    parts = {
        "rhs": torch.ones(3).double(),
        "x0": torch.ones(3).double(),
        "inner_rhs": torch.ones(2).double(),
    }
    parts[name] = change(parts[name])
    with pytest.raises(ValueError, match=rf"`{name}` must have the operator's dtype and device"):
        solve_coupled(solver, operator, **parts)


@SOLVERS
def test_the_remedy_for_another_dtype_works(solver):
    operator = MatrixOperator(2 * torch.eye(3).double(), positive_definite=True)
    rhs = torch.tensor([2, 4, 6])
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        solver.solve(operator, rhs)
    remedy = str(caught.value).split("`")[-2]
    solution = solver.solve(operator, eval(remedy, {"rhs": rhs, "torch": torch}))
    assert_close(solution.value, torch.tensor([1.0, 2, 3]), 1e-12)


@SOLVERS
@pytest.mark.parametrize("guess", [False, True], ids=["cold", "warm"])
def test_results_have_no_graph(guess, solver):
    factor = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(3, dtype=torch.float64)
    rhs = torch.randn(5, dtype=torch.float64, requires_grad=True)
    coupled = torch.randn(3, dtype=torch.float64, requires_grad=True)
    x0 = torch.randn(5, dtype=torch.float64, requires_grad=True) if guess else None
    plain = [None if part is None else part.detach().clone() for part in (rhs, x0, coupled)]
    solution = solve_coupled(solver, MatrixGram(factor, weights), rhs, coupled, x0=x0)
    expected = solve_coupled(
        solver, MatrixGram(factor.detach(), weights), plain[0], plain[2], x0=plain[1]
    )
    for ours, truth in zip(vars(solution).values(), vars(expected).values(), strict=True):
        if isinstance(ours, torch.Tensor):
            assert not ours.requires_grad
            assert torch.equal(ours, truth)


@SOLVERS
def test_a_system_without_unknowns(solver):
    operator = MatrixGram(torch.empty(0, 2), torch.ones(2))
    solution = solve_coupled(solver, operator, torch.empty(0), torch.tensor([1.0, 2.0]))
    assert solution.status is Status.CONVERGED
    assert solution.value.shape == (0,)
    assert torch.equal(solution.inner_value, torch.tensor([1.0, 2.0]))
    assert float(solution.rhs_norm) == float(solution.residual_norm) == 0.0


def test_the_residual_norm_of_conjugate_gradients_is_that_of_the_recursion():
    """Of an ill-conditioned system it falls below the true one, as the class says."""
    operator, rhs = system(1e10)
    solution = ConjugateGradient(rtol=1e-10, max_iter=2000).solve(operator, rhs)
    assert solution.status is Status.CONVERGED
    true = (rhs - operator.matrix @ solution.value).norm()
    assert solution.residual_norm < 0.5 * true
    assert true <= 1e-4 * rhs.norm()


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"rtol": -1.0}, ValueError, "`rtol` must be finite and not negative, got -1.0"),
        ({"rtol": math.nan}, ValueError, "`rtol`"),
        ({"rtol": "1e-2"}, TypeError, "`rtol` must be a number"),
        ({"atol": math.inf}, ValueError, "`atol`"),
        ({"max_iter": -1}, ValueError, "`max_iter` must be at least 0"),
        ({"max_iter": 2.0}, TypeError, "`max_iter` must be an integer"),
    ],
    ids=str,
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        ConjugateGradient(**kwargs)


def test_every_status_has_a_sentence():
    for status in Status:
        assert status.sentence.endswith(".")
