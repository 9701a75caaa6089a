"""The strength of the interaction, decoupled from the step size."""

import pytest
import torch
from cases import CASES
from dense import assert_close, blocks, cgd_deltas, flat

from compopt import ACGD, CGD, ConjugateGradient
from compopt.optim.rivals import LCGD

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
