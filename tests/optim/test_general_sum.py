"""Competitive steps of games with a loss for each player, against dense solves."""

from typing import Any

import pytest
import torch
from covering import pairwise
from dense import AdaptiveStepSizes
from dense_steps import assert_close
from games import GeneralGame, NetworkGame
from snapshots import all_params
from torch import Tensor

from compopt import (
    ACGD,
    CGD,
    GMRES,
    ConjugateGradient,
    DirectSolver,
    Game,
    MicroBatches,
    StepWarning,
)

SOLVERS = {
    "gmres": GMRES(rtol=1e-13, max_iter=60, restart=30),
    "restarted": GMRES(rtol=1e-12, max_iter=400, restart=3),
    "direct": DirectSolver(),
}
each_player = pytest.mark.parametrize("solve_for", ["min", "max", "alternate"])


def dense_move(game: GeneralGame, rates: Tensor) -> Tensor:
    """Solve the joint system ``(I + H H_o) dw = -H xi``."""
    w = game.w().detach()
    interaction = game.jacobian().clone()
    interaction[:4, :4], interaction[4:, 4:] = 0, 0
    matrix = torch.eye(7, dtype=torch.float64) + rates[:, None] * interaction
    return torch.linalg.solve(matrix, -rates * game.xi(w))


@pairwise(solver=SOLVERS, solve_for=["min", "max", "alternate"], seed=range(4))
def test_cgd_is_the_joint_solution(solver: Any, solve_for: str, seed: int) -> None:
    game = GeneralGame(seed)
    optimizer = CGD(
        [game.x], [game.y], lr=(0.1, 0.2), solver=solver, solve_for=solve_for, warm_start=True
    )
    rates = torch.tensor([0.1] * 4 + [0.2] * 3, dtype=torch.float64)
    for number in range(3):
        expected = game.w().detach() + dense_move(game, rates)
        returned = optimizer.step(game.losses if number else game.as_game())
        assert [value.requires_grad for value in returned] == [False, False]
        assert optimizer.last_step.taken
        assert_close(game.w().detach(), expected, f"step {number}")


def test_micro_batches_of_pairs_are_averaged_loss_by_loss() -> None:
    game, rates = GeneralGame(), torch.full((7,), 0.1, dtype=torch.float64)
    expected = game.w().detach() + dense_move(game, rates)
    first, second = game.losses()
    parts = [(0.5 * first, 1.5 * second), (1.5 * first, 0.5 * second)]
    CGD([game.x], [game.y], lr=0.1, solver=SOLVERS["direct"]).step(MicroBatches(parts))
    assert_close(game.w().detach(), expected, "step")


@each_player
def test_acgd_is_the_joint_solution(solve_for: str) -> None:
    game = GeneralGame()
    optimizer = ACGD(
        [game.x], [game.y], lr=(0.03, 0.05), solver=SOLVERS["gmres"], solve_for=solve_for
    )
    sizes = AdaptiveStepSizes(0.03, 0.99, 1e-5), AdaptiveStepSizes(0.05, 0.99, 1e-5)
    for _ in range(4):
        xi = game.xi(game.w().detach())
        rates = torch.cat([sizes[0](xi[:4]), sizes[1](xi[4:])])
        expected = game.w().detach() + dense_move(game, rates)
        optimizer.step(game.losses())
        assert_close(game.w().detach(), expected, "step")


@pytest.mark.parametrize("form", ["step", "closure", "backward"])
@pytest.mark.parametrize("cls", [CGD, ACGD])
def test_opposite_losses_give_the_zero_sum_step(cls: Any, form: str) -> None:
    game, twin = NetworkGame(torch.float64), NetworkGame(torch.float64)
    optimizer = cls(game.min_params, game.max_params, lr=0.05, solver=SOLVERS["gmres"])
    tight = ConjugateGradient(rtol=1e-13, max_iter=100)
    other = cls(twin.min_params, twin.max_params, lr=0.05, solver=tight)
    for batch in range(4):
        loss = game.loss(batch)
        if form == "backward":
            returned = optimizer.backward((loss, -loss))
            optimizer.step()
        else:
            pair = (loss, -loss)
            returned = optimizer.step(pair if form == "step" else lambda pair=pair: pair)
        expected = other.step(twin.loss(batch))
        assert returned[0].item() == -returned[1].item() == expected.item()
    for param, same in zip(all_params(optimizer), all_params(other), strict=True):
        assert_close(param.detach(), same.detach(), "parameter")


@pytest.mark.parametrize("cls", [CGD, ACGD])
def test_gmres_serves_zero_sum_games_too(cls: Any) -> None:
    game, twin = NetworkGame(torch.float64), NetworkGame(torch.float64)
    optimizer = cls(game.min_params, game.max_params, lr=0.05, solver=SOLVERS["gmres"])
    other = cls(twin.min_params, twin.max_params, lr=0.05, solver=DirectSolver())
    for batch in range(3):
        optimizer.step(game.loss(batch))
        other.step(twin.loss(batch))
    for param, same in zip(all_params(optimizer), all_params(other), strict=True):
        assert_close(param.detach(), same.detach(), "parameter")


def test_penalties_add_to_the_own_gradient_alone() -> None:
    game, twin = GeneralGame(), GeneralGame()
    optimizer = CGD([game.x], [game.y], lr=0.1, solver=DirectSolver())
    expected_xi = game.xi(game.w().detach())
    expected_xi[:4] += 2 * game.x.detach()
    twin.xi = lambda w: expected_xi
    expected = game.w().detach() + dense_move(twin, torch.full((7,), 0.1, dtype=torch.float64))
    optimizer.step(game.losses(), min_penalty=game.x.square().sum())
    assert_close(game.w().detach(), expected, "step")


def test_conjugate_gradients_are_refused_with_the_remedy() -> None:
    game = GeneralGame()
    for cls in (CGD, ACGD):
        optimizer = cls([game.x], [game.y], solver=ConjugateGradient())
        for loss in (game.losses(), game.losses, game.as_game()):
            for method in (optimizer.step, optimizer.backward):
                with pytest.raises(TypeError, match=r"not symmetric.*`solver=GMRES\(\)`"):
                    method(loss)
        assert not optimizer.state


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda f, g: (f,), TypeError, "pair"),
        (lambda f, g: (f, g, g), TypeError, "pair.*got 3"),
        (lambda f, g: (f, g.detach()), ValueError, "`max_loss`.*without a graph"),
        (lambda f, g: (f.detach(), g), ValueError, "`loss`.*without a graph"),
        (lambda f, g: (f, 1.0), TypeError, "`max_loss`.*float"),
        (lambda f, g: Game(f, max_loss=g.expand(2)), ValueError, "`max_loss`.*shape"),
    ],
)
def test_bad_pairs_change_nothing(make: Any, error: type[Exception], match: str) -> None:
    game = GeneralGame()
    optimizer = CGD([game.x], [game.y], solver=GMRES())
    before = game.w().detach().clone()
    with pytest.raises(error, match=match):
        optimizer.step(make(*game.losses()))
    assert torch.equal(game.w(), before)
    assert not optimizer.state


def test_fixed_count_is_capturable_on_a_device_that_cannot_be_read() -> None:
    x, y = (torch.zeros(3, device="meta", requires_grad=True) for _ in range(2))
    solver = GMRES(rtol=0.0, max_iter=3, restart=2)
    optimizer = CGD([x], [y], solver=solver, capturable=True, on_failure="skip")
    optimizer.step(((x * y).sum() + (x**2).sum(), (x * y).sin().sum()))


def test_scaling_is_for_one_loss() -> None:
    game = GeneralGame()
    optimizer = CGD([game.x], [game.y], solver=GMRES())
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    with pytest.raises(ValueError, match="`scaler` is for zero-sum games"):
        optimizer.backward(game.losses(), scaler=scaler)


@each_player
def test_a_detached_loss_is_said_once(solve_for: str) -> None:
    game = GeneralGame()
    optimizer = CGD([game.x], [game.y], lr=0.1, solver=SOLVERS["direct"], solve_for=solve_for)
    with pytest.warns(StepWarning, match="the loss of max does not depend on min") as caught:
        optimizer.step((game.losses()[0], (game.y**2).sum()))
    # Warnings are errors here: a second one would be seen.
    optimizer.step((game.losses()[0], (game.y**2).sum()))
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(StepWarning, match="of min does not depend on max and the loss of max does"):
        CGD([game.x], [game.y], lr=0.1, solver=SOLVERS["direct"]).step(
            ((game.x**2).sum(), (game.y**2).sum())
        )
