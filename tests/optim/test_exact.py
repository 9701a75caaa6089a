"""One step of CGD and ACGD against the closed form, solved densely."""

import math

import pytest
import torch
from cases import CASES, Case, no_interaction
from covering import pairwise
from dense import AdaptiveStepSizes, assert_close, blocks, cgd_deltas, flat

from compopt import ACGD, CGD, ConjugateGradient, ConvergenceWarning, DirectSolver, Game
from compopt.derivatives import differentiate
from compopt.optim.update import StepSizes, competitive_update

EXACT = ConjugateGradient(rtol=1e-12, max_iter=500)


def deltas_of_step(optimizer, case: Case):
    """Take a step; return how both players moved."""
    before = flat(case.min_params), flat(case.max_params)
    optimizer.step(case())
    assert optimizer.last_step.taken
    return flat(case.min_params) - before[0], flat(case.max_params) - before[1]


@pairwise(
    name=list(CASES),
    solve_for=["min", "max", "smaller"],
    solver={"cg": EXACT, "direct": DirectSolver()},
)
def test_cgd_is_the_closed_form(name, solve_for, solver):
    case = CASES[name]()
    optimizer = CGD(
        case.min_params, case.max_params, lr=(0.3, 0.7), solver=solver, solve_for=solve_for
    )
    for _ in range(2):
        at = blocks(case)
        eta_x, eta_y = torch.full_like(at.grad_x, 0.3), torch.full_like(at.grad_y, 0.7)
        expected = cgd_deltas(at, eta_x, eta_y)
        actual = deltas_of_step(optimizer, case)
        assert_close(actual[0], expected[0], 1e-10, "min player's move")
        assert_close(actual[1], expected[1], 1e-10, "max player's move")


@pairwise(
    name=list(CASES),
    solve_for=["min", "max", "alternate"],
    warm_start={"cold": False, "warm": True},
)
def test_acgd_is_the_closed_form(name, solve_for, warm_start):
    case = CASES[name]()
    optimizer = ACGD(
        case.min_params,
        case.max_params,
        lr=(0.03, 0.05),
        solver=EXACT,
        solve_for=solve_for,
        warm_start=warm_start,
    )
    eta_x, eta_y = AdaptiveStepSizes(0.03, 0.99, 1e-5), AdaptiveStepSizes(0.05, 0.99, 1e-5)
    for _ in range(4):
        at = blocks(case)
        expected = cgd_deltas(at, eta_x(at.grad_x), eta_y(at.grad_y))
        actual = deltas_of_step(optimizer, case)
        assert_close(actual[0], expected[0], 1e-10, "min player's move")
        assert_close(actual[1], expected[1], 1e-10, "max player's move")


def test_step_sizes_of_several_groups_are_a_vector():
    case = CASES["mlp-gan"]()
    rates = [0.1, 0.2, 0.3, 0.4]
    groups = [
        [{"params": [p], "lr": lr} for p, lr in zip(params, rates, strict=True)]
        for params in (case.min_params, case.max_params)
    ]
    optimizer = CGD(*groups, solver=EXACT)
    eta = [
        torch.cat([p.new_full((p.numel(),), lr) for p, lr in zip(params, rates, strict=True)])
        for params in (case.min_params, case.max_params)
    ]
    expected = cgd_deltas(blocks(case), *eta)
    actual = deltas_of_step(optimizer, case)
    assert_close(actual[0], expected[0], 1e-10)
    assert_close(actual[1], expected[1], 1e-10)


def test_without_interaction_cgd_is_gradient_descent_ascent():
    ours, theirs = no_interaction(), no_interaction()
    optimizer = CGD(ours.min_params, ours.max_params, lr=(0.1, 0.2))
    descent = torch.optim.SGD(theirs.min_params, lr=0.1)
    ascent = torch.optim.SGD(theirs.max_params, lr=0.2, maximize=True)
    for _ in range(5):
        optimizer.step(ours())
        descent.zero_grad()
        ascent.zero_grad()
        theirs().backward()
        descent.step()
        ascent.step()
    assert_close(flat(ours.min_params), flat(theirs.min_params), 1e-15)
    assert_close(flat(ours.max_params), flat(theirs.max_params), 1e-15)


# methods: |(x, y)| after 50 steps of eta = 0.2 from (0.5, 0.5) on alpha x y.
@pytest.mark.parametrize(
    ("alpha", "published"), [(1, 0.2652), (3, 3.243e-4), (6, 1.461e-10)], ids=["1", "3", "6"]
)
def test_bilinear_table(alpha, published):
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    optimizer = CGD([x], [y], lr=0.2, solver=ConjugateGradient(rtol=1e-12))
    for _ in range(50):
        optimizer.step(alpha * x * y)
    radius = math.hypot(x.item(), y.item())
    # The factor per step is (1 + (eta alpha)^2)^(-1/2).
    assert radius == pytest.approx(math.sqrt(0.5) * (1 + (0.2 * alpha) ** 2) ** -25, rel=1e-12)
    assert float(f"{radius:.3e}") == published


@pytest.mark.parametrize("alpha", [1, 3, 6])
def test_a_separable_saddle_gives_gradient_descent_ascent(alpha):
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    optimizer = CGD([x], [y], lr=0.2)
    for _ in range(5):
        optimizer.step(alpha * (x**2 - y**2))
    factor = 1 - 0.2 * 2 * alpha
    assert x.item() == pytest.approx(0.5 * factor**5, rel=1e-13)
    assert y.item() == pytest.approx(0.5 * factor**5, rel=1e-13)


def test_no_iterations_leave_the_solved_player_where_it_is():
    case = CASES["quadratic"]()
    at = blocks(case)
    solver = ConjugateGradient(max_iter=0)
    optimizer = CGD(case.min_params, case.max_params, lr=0.1, solver=solver, solve_for="min")
    with pytest.warns(ConvergenceWarning, match="used all its iterations"):
        dx, dy = deltas_of_step(optimizer, case)
    assert_close(dx, torch.zeros_like(dx), 0.0)
    assert_close(dy, 0.1 * at.grad_y, 1e-14)


@pytest.mark.parametrize("solve_for", ["min", "max"])
def test_exact_warm_start_needs_no_iteration(solve_for):
    case = CASES["quadratic"]()
    solver = ConjugateGradient(rtol=1e-9, max_iter=100)
    optimizer = CGD(
        case.min_params,
        case.max_params,
        lr=0.1,
        solver=solver,
        solve_for=solve_for,
        warm_start=True,
    )
    start = flat(case.min_params), flat(case.max_params)
    first = deltas_of_step(optimizer, case)
    with torch.no_grad():
        for param, old in zip((*case.min_params, *case.max_params), start, strict=True):
            param.copy_(old)
    second = deltas_of_step(optimizer, case)
    assert optimizer.last_step.num_iter == 0
    assert optimizer.last_step.num_hvp == 2
    assert_close(second[0], first[0], 1e-8)
    assert_close(second[1], first[1], 1e-8)


@pytest.mark.parametrize("player", ["min", "max"])
def test_a_move_is_scaled_by_the_present_step_sizes(player):
    # Whatever the step sizes were when the move was made: handing over the exact move for the
    # present ones leaves nothing to solve.
    case = CASES["mlp-gan"]()
    at = blocks(case)
    eta = {"min": torch.rand_like(at.grad_x) + 0.1, "max": torch.rand_like(at.grad_y) + 0.1}
    dx, dy = cgd_deltas(at, eta["min"], eta["max"])
    gradients = differentiate(Game(case()), case.players)
    grads = {"min": gradients.grads["min"], "max": gradients.grads["max"]}
    sign = {"min": 1, "max": -1}[player]
    update = competitive_update(
        gradients,
        {p: StepSizes.of(eta[p], grads[p], sign if p == player else None) for p in ("min", "max")},
        ConjugateGradient(rtol=1e-9),
        player=player,
        previous_delta={"min": dx, "max": dy}[player],
    )
    assert update.solution.num_iter == 0
    assert_close(update.delta["min"], dx, 1e-9)
    assert_close(update.delta["max"], dy, 1e-9)


def test_warm_start_after_a_change_of_the_learning_rate():
    case = CASES["mlp-gan"]()
    optimizer = CGD(case.min_params, case.max_params, lr=0.1, solver=EXACT, warm_start=True)
    deltas_of_step(optimizer, case)
    for group, lr in zip(optimizer.param_groups, (0.4, 0.0), strict=True):
        group["lr"] = lr
    at = blocks(case)
    dx, dy = deltas_of_step(optimizer, case)
    assert_close(dx, -0.4 * at.grad_x, 1e-12)
    assert_close(dy, torch.zeros_like(dy), 0.0)


def test_acgd_follows_the_published_package():
    """100 steps of ACGD beside CGDs 0.4.5, alternation matched, both solved tightly."""
    import CGDs

    ours, theirs = CASES["mlp-gan"](), CASES["mlp-gan"]()
    # The package makes its zeros in the default dtype.
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        published = CGDs.ACGD(
            max_params=theirs.max_params,
            min_params=theirs.min_params,
            lr_max=1e-3,
            lr_min=1e-3,
            tol=1e-26,
            atol=1e-40,
        )
        optimizer = ACGD(
            ours.min_params,
            ours.max_params,
            lr=1e-3,
            solver=ConjugateGradient(rtol=1e-13, max_iter=500),
            solve_for="alternate",
            warm_start=True,
        )
        for _ in range(100):
            optimizer.step(ours())
            published.step(theirs())
    finally:
        torch.set_default_dtype(default)
    moved = flat(ours.min_params) - flat(CASES["mlp-gan"]().min_params)
    assert torch.linalg.vector_norm(moved) > 0.1
    assert_close(flat(ours.min_params), flat(theirs.min_params), 1e-6, "min player")
    assert_close(flat(ours.max_params), flat(theirs.max_params), 1e-6, "max player")
