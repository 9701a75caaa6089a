"""Operators against their dense matrices, and SciPy's solvers against ours."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from cases import CASES
from covering import one_each
from dense import assert_close, blocks

from compopt import ConjugateGradient, Game
from compopt._flat import Workspace
from compopt.derivatives import differentiate
from compopt.operators import MatrixOperator, TwoPlayerOperator

NAMES = ["bilinear", "quadratic", "scalar", "no-interaction", "mlp-gan", "wgan"]
# With the dense form each game is solved for both players, with what follows from it for one.
SOME = one_each(NAMES, ["min", "max"])
each_game = pytest.mark.parametrize(("case", "player"), SOME, indirect=["case"])


@pytest.fixture
def case(request):
    return CASES[request.param]()


@pytest.fixture
def built(case, player):
    """A competitive operator with its dense factor, computed another way."""
    at = blocks(case)
    sizes = {"min": torch.rand_like(at.grad_x) + 0.1, "max": torch.rand_like(at.grad_y) + 0.1}
    weights = sizes[{"min": "max", "max": "min"}[player]]
    mixed = differentiate(Game(case()), case.players)
    operator = TwoPlayerOperator(mixed, player, sizes[player].sqrt(), weights)
    block = at.mixed if player == "min" else at.mixed.T
    return operator, sizes[player].sqrt()[:, None] * block, torch.diag(weights)


@pytest.mark.parametrize("player", ["min", "max"])
@pytest.mark.parametrize("case", NAMES, indirect=True)
def test_dense_form(built):
    operator, factor, weights = built
    identity = torch.eye(operator.size, dtype=torch.float64)
    assert_close(operator.to_dense(), identity + factor @ weights @ factor.T, 1e-12)


@each_game
def test_parts(built):
    operator, factor, weights = built
    inner = torch.randn(operator.inner_size, dtype=torch.float64)
    vector = torch.randn(operator.size, dtype=torch.float64)
    assert_close(operator.factor(inner), factor @ inner, 1e-12)
    assert_close(operator.response(vector), factor.T @ vector, 1e-12)
    assert_close(operator.reaction(vector), weights @ factor.T @ vector, 1e-12)
    assert_close(operator.scale_inner(inner), weights @ inner, 1e-15)
    reaction, energy = operator.reaction_energy(vector)
    assert_close(reaction, weights @ factor.T @ vector, 1e-12)
    assert_close(energy, vector @ factor @ weights @ factor.T @ vector, 1e-12)


@each_game
def test_results_go_where_they_are_asked_for(built):
    operator, factor, weights = built
    inner = torch.randn(operator.inner_size, dtype=torch.float64)
    vector = torch.randn(operator.size, dtype=torch.float64)
    reaction = weights @ factor.T @ vector
    for method, argument, expected in (
        (operator.factor, inner, factor @ inner),
        (operator.response, vector, factor.T @ vector),
        (operator.reaction, vector, reaction),
        (operator.scale_inner, inner, weights @ inner),
    ):
        out = torch.full_like(expected, torch.nan)
        assert method(argument, out) is out
        assert_close(out, expected, 1e-12)
    out = torch.full_like(reaction, torch.nan)
    assert operator.reaction_energy(vector, out)[0] is out
    assert_close(out, reaction, 1e-12)


@each_game
def test_vectors_to_work_in_are_kept_in_the_workspace(case, player):
    mixed = differentiate(Game(case()), case.players)
    other = {"min": "max", "max": "min"}[player]
    sizes = (torch.rand(mixed.layouts[p].numel, dtype=torch.float64) for p in (player, other))
    workspace = Workspace()
    operator = TwoPlayerOperator(mixed, player, *sizes, workspace)
    for new, size in (
        (operator.new_vector, operator.size),
        (operator.new_inner, operator.inner_size),
    ):
        vector = new("p")
        assert (vector.shape, vector.dtype) == ((size,), torch.float64)
        assert new("p") is vector
        assert new("q").data_ptr() != vector.data_ptr()
        assert any(vector is kept for kept in workspace.vectors.values())


@each_game
def test_symmetric_with_eigenvalues_of_at_least_one(built):
    operator, _, _ = built
    dense = operator.to_dense()
    assert operator.is_positive_definite
    assert_close(dense, dense.T, 1e-12)
    assert torch.linalg.eigvalsh(dense).min() >= 1 - 1e-12


@each_game
def test_arguments_are_not_modified(built):
    operator, _, _ = built
    vector = torch.randn(operator.size, dtype=torch.float64)
    before = vector.clone()
    operator.matvec(vector)
    assert torch.equal(vector, before)


@each_game
def test_scipy_solves_the_same_system(built):
    operator, _, _ = built
    rhs = torch.randn(operator.size, dtype=torch.float64)
    theirs, info = scipy.sparse.linalg.cg(operator.to_scipy(), rhs.numpy(), rtol=1e-12, atol=0)
    assert info == 0
    ours = ConjugateGradient(rtol=1e-12, max_iter=200).solve(operator, rhs)
    assert_close(ours.value, torch.from_numpy(theirs), 1e-9)


@each_game
def test_scipy_sees_the_transpose_of_a_symmetric_operator(built):
    operator, _, _ = built
    vector = np.random.default_rng(0).standard_normal(operator.size)
    exported = operator.to_scipy()
    assert exported.dtype == np.float64
    np.testing.assert_allclose(exported.rmatvec(vector), exported.matvec(vector), rtol=1e-12)


def test_matrix_operator():
    matrix = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    operator = MatrixOperator(matrix)
    assert torch.equal(operator.to_dense(), matrix)
    assert not operator.is_positive_definite
    with pytest.raises(ValueError, match="must be square"):
        MatrixOperator(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"`vector` must have shape \(2,\), got \(3,\)"):
        operator.matvec(torch.ones(3))


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scipy_multiplies_complex_vectors(dtype, positive):
    factor = torch.randn(6, 6, dtype=dtype)
    matrix = factor @ factor.T if positive else factor
    operator = MatrixOperator(matrix, positive_definite=positive).to_scipy()
    vector = torch.randn(6, dtype=dtype).numpy() + 1j * torch.randn(6, dtype=dtype).numpy()
    block = np.stack([vector, 2j * vector], axis=1)
    rtol = 1e-12 if dtype == torch.float64 else 1e-5
    np.testing.assert_allclose(operator @ vector, matrix.numpy() @ vector, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(operator @ block, matrix.numpy() @ block, rtol=rtol, atol=rtol)
    if positive:
        np.testing.assert_allclose(operator.H @ vector, matrix.numpy() @ vector, rtol=rtol)


@each_game
def test_scipy_solves_complex_systems(built):
    operator, factor, weights = built
    identity = torch.eye(operator.size, dtype=torch.float64)
    truth = (identity + factor @ weights @ factor.T).numpy()
    rhs = np.linspace(-1, 1, operator.size) + 1j * np.linspace(0.5, 2, operator.size)
    found, info = scipy.sparse.linalg.gmres(operator.to_scipy(), rhs, rtol=1e-12)
    assert info == 0
    np.testing.assert_allclose(found, np.linalg.solve(truth, rhs), rtol=1e-8, atol=1e-10)


def test_an_operator_without_rows():
    assert MatrixOperator(torch.empty(0, 0)).to_dense().shape == (0, 0)
