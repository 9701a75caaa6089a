"""Gradients and mixed products against dense blocks."""

import pytest
import torch
from cases import CASES
from dense import assert_close, blocks
from saved_tensors import counting_saved_tensors

from compopt import Game
from compopt._flat import Workspace
from compopt.derivatives import differentiate

# The dense blocks are compared in every game, what is done with them in some.
each_game = pytest.mark.parametrize("case", CASES, indirect=True)
some_games = pytest.mark.parametrize("case", ["scalar", "mlp-gan", "wgan"], indirect=True)


@pytest.fixture
def case(request):
    return CASES[request.param]()


@pytest.fixture
def gradients(case):
    return differentiate(Game(case()), case.players)


@each_game
def test_gradients_are_each_players_own(case, gradients):
    at = blocks(case)
    assert_close(gradients.losses[0], case().detach(), 1e-14)
    assert_close(gradients.grads["min"], at.grad_x, 1e-12)
    assert_close(gradients.grads["max"], -at.grad_y, 1e-12)


@each_game
def test_products_are_those_of_the_dense_block(case, gradients, monkeypatch):
    at = blocks(case)
    u, v = torch.randn_like(at.grad_x), torch.randn_like(at.grad_y)
    original, calls = torch.autograd.grad, []
    for _ in range(2):
        assert_close(gradients.mixed_product("min", v), at.mixed @ v, 1e-12)
        assert_close(gradients.mixed_product("max", u), at.mixed.T @ u, 1e-12)
        # Where torch's function is replaced it is called rather than passed by.
        counted = lambda *args, **options: calls.append(1) or original(*args, **options)  # noqa: E731
        monkeypatch.setattr(torch.autograd, "grad", counted)
    assert gradients.num_products == 4
    depends = bool(at.mixed.any())
    assert len(calls) == 2 or not depends


@some_games
def test_products_are_transposes_of_each_other(gradients):
    u, v = torch.randn_like(gradients.grads["min"]), torch.randn_like(gradients.grads["max"])
    left = torch.dot(u, gradients.mixed_product("min", v))
    right = torch.dot(gradients.mixed_product("max", u), v)
    assert_close(left, right, 1e-12)


@some_games
def test_products_can_be_written_into_a_vector(case, gradients):
    at = blocks(case)
    out = torch.full_like(at.grad_x, torch.nan)
    v = torch.randn_like(at.grad_y)
    assert gradients.product("min", "min", {"max": v}, out=out) is out
    assert_close(out, at.mixed @ v, 1e-12)


@some_games
def test_gradients_can_be_written_into_a_workspace(case):
    at, workspace = blocks(case), Workspace()
    for _ in range(2):
        gradients = differentiate(Game(case()), case.players, workspace=workspace)
        (kept,) = workspace.vectors.values()
        assert gradients.grads["min"].data_ptr() == kept.data_ptr()
        assert_close(gradients.grads["min"], at.grad_x, 1e-12)
        assert_close(gradients.grads["max"], -at.grad_y, 1e-12)


@some_games
def test_products_can_be_scaled(case, gradients):
    at = blocks(case)
    u, scale = torch.randn_like(at.grad_x), torch.rand_like(at.grad_y)
    product = gradients.product("min", "max", {"min": u}, scale=scale)
    assert_close(product, scale * (at.mixed.T @ u), 1e-12)


@some_games
def test_nothing_of_the_user_is_touched(case):
    params = [*case.min_params, *case.max_params]
    for param in params:
        param.grad = torch.full_like(param, 7.0)
    before = [param.detach().clone() for param in params]
    gradients = differentiate(Game(case()), case.players)
    gradients.mixed_product("min", torch.ones_like(gradients.grads["max"]))
    for param, old in zip(params, before, strict=True):
        assert torch.equal(param, old)
        assert torch.equal(param.grad, torch.full_like(param, 7.0))


def test_penalties_add_to_their_own_player_and_not_to_the_products():
    case = CASES["quadratic"]()
    (x,), (y,) = case.min_params, case.max_params
    plain = differentiate(Game(case()), {"min": [x], "max": [y]})
    # A coupled term shows that the products leave it out.
    game = Game(case(), min_penalty=(x.sum() * y.sum()) ** 2, max_penalty=(y**4).sum())
    gradients = differentiate(game, {"min": [x], "max": [y]})
    coupled = 2 * x.sum() * y.sum() ** 2
    assert_close(gradients.grads["min"], plain.grads["min"] + coupled.detach(), 1e-13)
    assert_close(gradients.grads["max"], plain.grads["max"] + 4 * y.detach() ** 3, 1e-13)
    v = torch.randn_like(y)
    assert torch.equal(gradients.mixed_product("min", v), plain.mixed_product("min", v))


def test_penalties_may_share_the_graph_of_the_loss():
    case = CASES["mlp-gan"]()
    loss = case()
    gradients = differentiate(Game(loss, max_penalty=loss.exp()), case.players)
    at = blocks(case)
    expected = -at.grad_y + loss.detach().exp() * at.grad_y
    assert_close(gradients.grads["max"], expected, 1e-12)
    v = torch.randn_like(at.grad_y)
    assert_close(gradients.mixed_product("min", v), at.mixed @ v, 1e-12)


def test_the_scale_of_the_loss_leaves_the_products():
    case = CASES["mlp-gan"]()
    at = blocks(case)
    game = Game(case()).map(lambda term: term * 1024.0)
    gradients = differentiate(game, case.players, scale=1024.0)
    assert_close(gradients.grads["min"], 1024 * at.grad_x, 1e-13)
    v = torch.randn_like(at.grad_y)
    assert_close(gradients.mixed_product("min", v), at.mixed @ v, 1e-12)


@some_games
def test_the_graph_dies_with_the_gradients(case):
    with counting_saved_tensors() as saved:
        gradients = differentiate(Game(case()), case.players)
        gradients.mixed_product("min", torch.ones_like(gradients.grads["max"]))
        assert saved.alive() > 0
        del gradients
        assert saved.alive() == 0


@pytest.mark.parametrize("player", ["min", "max"])
def test_a_player_that_takes_no_part_is_named(player):
    x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    loss = {"min": y, "max": x}[player].sum()
    with pytest.raises(ValueError, match=f"none of the {player} player's takes part"):
        differentiate(Game(loss), {"min": [x], "max": [y]})


def test_sparse_gradients_are_refused():
    table = torch.nn.Embedding(4, 2, sparse=True)
    y = torch.ones(2, requires_grad=True)
    loss = (table(torch.tensor([1])) * y).sum()
    with pytest.raises((ValueError, RuntimeError), match="sparse"):
        differentiate(Game(loss), {"min": list(table.parameters()), "max": [y]})


@some_games
def test_a_vector_of_the_wrong_size_is_refused(gradients):
    with pytest.raises(ValueError, match="`vector` must have shape"):
        gradients.mixed_product("min", torch.ones(1000, dtype=torch.float64))
