"""The strength of the interaction, decoupled from the step size."""

from typing import Any

import pytest
import torch
from cases import CASES
from dense import assert_close, blocks, cgd_deltas, flat
from games import PLAYERS, QuadraticGame
from optimizer_registry import OptimizerInfo, each_competitive
from snapshots import assert_same_bits, snapshot

from compopt import ACGD, CGD, GMRES, ConjugateGradient
from compopt.optim.rivals import LCGD
from compopt.solvers import Status

EXACT = ConjugateGradient(rtol=1e-12, max_iter=500)


@pytest.mark.parametrize("solve_for", ["min", "max"])
@pytest.mark.parametrize("case", ["quadratic", "mlp-gan"])
def test_moves_are_the_published_formula(case, solve_for):
    """dx = -eta (I + a^2 D D^T)^-1 (g_x + a D g_y): CGD with step a, times eta / a."""
    game = CASES[case]()
    at = blocks(game)
    a = torch.full_like(at.grad_x, 0.8), torch.full_like(at.grad_y, 0.8)
    expected = [delta * 0.05 / 0.8 for delta in cgd_deltas(at, *a)]
    before = flat(game.min_params), flat(game.max_params)
    optimizer = CGD(
        game.min_params,
        game.max_params,
        lr=0.05,
        interaction=0.8,
        solver=EXACT,
        solve_for=solve_for,
    )
    optimizer.step(game())
    assert_close(flat(game.min_params) - before[0], expected[0], 1e-10, "min player")
    assert_close(flat(game.max_params) - before[1], expected[1], 1e-10, "max player")


@pytest.mark.parametrize("cls", [CGD, ACGD])
def test_strength_of_the_learning_rate_changes_nothing(cls):
    games = CASES["mlp-gan"](), CASES["mlp-gan"]()
    for game, interaction in zip(games, (None, 0.03), strict=True):
        optimizer = cls(
            game.min_params, game.max_params, lr=0.03, interaction=interaction, solver=EXACT
        )
        for _ in range(3):
            optimizer.step(game())
    for param, other in zip(games[0].min_params, games[1].min_params, strict=True):
        assert_close(param.detach(), other.detach(), 1e-12)


def test_exact_warm_start_needs_no_iteration_and_survives_a_rate_of_zero():
    case = CASES["quadratic"]()
    solver = ConjugateGradient(rtol=1e-9, max_iter=100)
    optimizer = CGD(
        case.min_params,
        case.max_params,
        lr=0.1,
        interaction=0.7,
        solver=solver,
        warm_start=True,
        solve_for="min",
    )
    start = flat(case.min_params), flat(case.max_params)
    for lr, num_iter in ((0.1, None), (0.1, 0), (0.0, None), (0.1, None)):
        with torch.no_grad():
            for param, old in zip((*case.min_params, *case.max_params), start, strict=True):
                param.copy_(old)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step(case())
        assert optimizer.last_step.taken
        if num_iter is not None:
            assert optimizer.last_step.num_iter == num_iter


def test_the_same_option_of_lcgd_is_the_first_order_of_this_one():
    def end(cls, interaction, **kwargs):
        case = CASES["quadratic"]()
        cls(case.min_params, case.max_params, lr=1.0, interaction=interaction, **kwargs).step(
            case()
        )
        return torch.cat([flat(case.min_params), flat(case.max_params)])

    errors = [(end(CGD, a, solver=EXACT) - end(LCGD, a)).norm() for a in (1e-3, 5e-4)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("warm_start", [False, True])
@each_competitive
def test_without_interaction_the_step_is_the_plain_one(
    info: OptimizerInfo, warm_start: bool
) -> None:
    assert info.rates is not None
    game, memory = QuadraticGame(), {player: {} for player in PLAYERS}
    optimizer: Any = info.build(game, lr=(0.1, 0.02), interaction=0.0, warm_start=warm_start)
    for _ in range(3):
        own = game.own_grads()
        before = {"min": flat(game.min_params).clone(), "max": flat(game.max_params).clone()}
        optimizer.step(game.loss())
        for player, params in (("min", game.min_params), ("max", game.max_params)):
            group = next(g for g in optimizer.param_groups if g["player"] == player)
            rates = info.rates(group, own[player], memory[player])
            assert_close(flat(params).detach(), before[player] - rates * own[player], 1e-12, player)
        report = optimizer.last_step
        assert (report.num_hvp, report.num_iter, report.status) == (0, 0, Status.CONVERGED)
        assert report.taken
        assert report.relative_residual == 0


@pytest.mark.parametrize("is_pair", [False, True])
def test_without_interaction_no_graph_is_made(is_pair: bool) -> None:
    """Backward passes run without gradients: nothing is kept for a second derivative."""

    class Cubed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            assert not torch.is_grad_enabled()
            return 3 * x**2 * grad

    x, y = (torch.tensor([2.0], requires_grad=True) for _ in range(2))
    solver = GMRES() if is_pair else None
    optimizer = CGD([x], [y], lr=0.01, interaction=0.0, solver=solver)
    for is_two_phase in (False, True):
        loss = (Cubed.apply(x) * Cubed.apply(y)).sum()
        game = (loss, -loss) if is_pair else loss
        expected = x - 0.01 * 3 * x**2 * y**3, y + 0.01 * 3 * y**2 * x**3
        if is_two_phase:
            optimizer.backward(game)
            optimizer.step()
        else:
            optimizer.step(game)
        assert_close(torch.cat([x, y]).detach(), torch.cat(expected).detach(), 1e-6)


@each_competitive
def test_interaction_may_be_turned_off_and_on_in_the_groups(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer: Any = info.build(game, lr=0.1, warm_start=True)
    for strength, has_products in ((0.0, False), (None, True), (0, False), (0.05, True)):
        for group in optimizer.param_groups:
            group["interaction"] = strength
        optimizer.step(game.loss())
        assert (optimizer.last_step.num_hvp > 0) is has_products
        assert optimizer.last_step.taken
    before = snapshot(optimizer)
    optimizer.param_groups[0]["interaction"] = 0.0
    with pytest.raises(ValueError, match="must be 0 in all groups of both players or in none"):
        optimizer.step(game.loss())
    assert_same_bits(snapshot(optimizer), before)
