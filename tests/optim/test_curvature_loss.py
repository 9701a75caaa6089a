"""A loss of its own for the second derivatives: gradients of one, mixed block of the other."""

from dataclasses import replace

import pytest
import torch
from cases import CASES, Case
from dense import AdaptiveStepSizes, assert_close, blocks, cgd_deltas, flat

from compopt import ACGD, CGD, GMRES, ConjugateGradient, Game
from compopt.optim import rivals

EXACT = ConjugateGradient(rtol=1e-12, max_iter=500)


@pytest.fixture(params=["quadratic", "mlp-gan"])
def case(request) -> Case:
    return CASES[request.param]()


def other(case: Case) -> Case:
    """Return a game of other second derivatives in the same tensors."""

    def loss(xs, ys):
        total = sum(x.sum() for x in xs)
        return 0.5 * case.loss(xs, ys) + 0.3 * total * sum((y**2).sum() for y in ys)

    return replace(case, loss=loss)


def expected_deltas(case: Case, eta_x, eta_y):
    at = replace(blocks(case), mixed=blocks(other(case)).mixed)
    return cgd_deltas(at, eta_x(at.grad_x), eta_y(at.grad_y))


@pytest.mark.parametrize("solve_for", ["min", "max"])
def test_the_step_is_the_closed_form_of_both(case, solve_for):
    optimizer = ACGD(
        case.min_params, case.max_params, lr=(0.03, 0.05), solver=EXACT, solve_for=solve_for
    )
    eta_x, eta_y = AdaptiveStepSizes(0.03, 0.99, 1e-5), AdaptiveStepSizes(0.05, 0.99, 1e-5)
    for _ in range(3):
        expected = expected_deltas(case, eta_x, eta_y)
        before, value = (flat(case.min_params), flat(case.max_params)), case().detach()
        returned = optimizer.step(case(), curvature_loss=other(case)())
        assert torch.equal(returned, value)
        for params, start, delta in zip(
            (case.min_params, case.max_params), before, expected, strict=True
        ):
            assert_close(flat(params) - start, delta, 1e-9)


def moved(case: Case, step) -> torch.Tensor:
    """Return both players after a step of CGD with a fixed count."""
    params = [
        [p.detach().clone().requires_grad_() for p in ps]
        for ps in (case.min_params, case.max_params)
    ]
    game = replace(case, min_params=params[0], max_params=params[1])
    optimizer = CGD(*params, lr=0.1, solver=ConjugateGradient(rtol=0.0, max_iter=3))
    step(optimizer, game)
    return flat([*params[0], *params[1]])


def test_all_forms_take_the_same_step(case):
    def direct(optimizer, game):
        optimizer.step(game(), curvature_loss=other(game)())

    def as_game(optimizer, game):
        optimizer.step(lambda: Game(game(), curvature_loss=other(game)()))

    def in_two_phases(optimizer, game):
        optimizer.backward(game(), curvature_loss=other(game)())
        optimizer.step()

    def scaled(optimizer, game):
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        optimizer.backward(game(), curvature_loss=other(game)(), scaler=scaler)
        scaler.step(optimizer)

    def as_penalties(optimizer, game):
        rest = game() - other(game)()
        optimizer.step(other(game)(), min_penalty=rest, max_penalty=-rest)

    expected = moved(case, direct)
    for form in (as_game, in_two_phases):
        assert torch.equal(moved(case, form), expected), form.__name__
    for form in (scaled, as_penalties):
        assert_close(moved(case, form), expected, 1e-12, form.__name__)
    assert not torch.equal(moved(case, lambda optimizer, game: optimizer.step(game())), expected)


def test_penalties_go_beside_both(case):
    def step(optimizer, game):
        with torch.enable_grad():
            penalty = sum((p**2).sum() for p in game.max_params)
        optimizer.step(game(), curvature_loss=game(), max_penalty=penalty)

    def plain(optimizer, game):
        with torch.enable_grad():
            penalty = sum((p**2).sum() for p in game.max_params)
        optimizer.step(game(), max_penalty=penalty)

    assert_close(moved(case, step), moved(case, plain), 1e-12)


def test_losses_may_share_a_forward_pass():
    x = torch.randn(5, 3, dtype=torch.float64)
    net = torch.nn.Linear(3, 2).double()
    critic = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    critic.double()
    scores = critic(net(x))
    optimizer = CGD(net.parameters(), critic.parameters(), lr=0.1)
    optimizer.step(scores.mean(), curvature_loss=scores[:2].mean())
    assert optimizer.last_step.taken


def test_bad_input_changes_nothing(case):
    optimizer = CGD(case.min_params, case.max_params, lr=0.1)
    before = flat([*case.min_params, *case.max_params])
    with pytest.raises(ValueError, match="`curvature_loss` is given in the `Game` and as an arg"):
        optimizer.step(Game(case(), curvature_loss=case()), curvature_loss=case())
    with pytest.raises(TypeError, match="`curvature_loss` must be"):
        optimizer.step(case(), curvature_loss=1.0)
    with pytest.raises(ValueError, match="`curvature_loss`"):
        optimizer.step(case(), curvature_loss=case().detach())
    with pytest.raises(ValueError, match="These terms go with the loss"):
        optimizer.step(curvature_loss=case())
    pair = CGD(case.min_params, case.max_params, lr=0.1, solver=GMRES())
    with pytest.raises(ValueError, match="`curvature_loss` is for zero-sum games"):
        pair.step((case(), -case()), curvature_loss=case())
    assert torch.equal(flat([*case.min_params, *case.max_params]), before)
    assert not optimizer.state


@pytest.mark.parametrize("optimizer_class", [rivals.ExtraAdam, rivals.ConsensusOptimization])
def test_what_does_not_solve_refuses_it(case, optimizer_class):
    optimizer = optimizer_class(case.min_params, case.max_params, lr=0.1)
    with pytest.raises(ValueError, match="`curvature_loss` is for CGD and ACGD"):
        optimizer.step(lambda: Game(case(), curvature_loss=case()))
