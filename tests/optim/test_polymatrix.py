"""Competitive steps of n players against dense solves, and its life as a torch optimizer."""

import copy
import pickle
import re
from functools import partial
from typing import Any

import pytest
import torch
from covering import pairwise
from dense_steps import assert_close
from games import GeneralGame, NetworkGame
from snapshots import all_params, assert_same_bits, snapshot
from torch import Tensor, nn
from torch.optim import lr_scheduler
from training_runs import through_file

from compopt import ACGD, CGD, GMRES, ConjugateGradient, DirectSolver, StepWarning
from compopt.optim import PolymatrixCGD

TIGHT = GMRES(rtol=1e-13, max_iter=100, restart=50)


class ManyPlayers:
    """A quadratic loss for each player in all players' vectors, of sizes 2, 3, ..."""

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        random = partial(torch.randn, generator=generator, dtype=torch.float64)
        self.sizes = list(range(2, 2 + count))
        self.params = [random(size).requires_grad_() for size in self.sizes]
        total = sum(self.sizes)
        self.hessians = [(h + h.T) / 2 for h in (random(total, total) for _ in range(count))]
        self.linear = [random(total) for _ in range(count)]

    def w(self) -> Tensor:
        return torch.cat(self.params)

    def losses(self) -> list[Tensor]:
        w = self.w()
        return [w @ h @ w / 2 + b @ w for h, b in zip(self.hessians, self.linear, strict=True)]

    def dense_move(self, rates: Tensor) -> Tensor:
        w, rows, xi, start = self.w().detach(), [], [], 0
        for size, hessian, linear in zip(self.sizes, self.hessians, self.linear, strict=True):
            where = slice(start, start + size)
            xi.append((hessian @ w + linear)[where])
            block = hessian[where].clone()
            block[:, where] = 0
            rows.append(block)
            start += size
        self.xi = torch.cat(xi)
        matrix = torch.eye(len(w), dtype=torch.float64) + rates[:, None] * torch.cat(rows)
        return torch.linalg.solve(matrix, -rates * self.xi)


@pairwise(count=[2, 3, 5], solver={"gmres": TIGHT, "direct": DirectSolver()}, seed=range(3))
def test_steps_are_the_dense_ones(count: int, solver: Any, seed: int) -> None:
    game = ManyPlayers(count, seed)
    lr = [0.1 / (1 + player) for player in range(count)]
    optimizer = PolymatrixCGD([[param] for param in game.params], lr=lr, solver=solver)
    rates = torch.cat(
        [torch.full((n,), r, dtype=torch.float64) for n, r in zip(game.sizes, lr, strict=True)]
    )
    for number in range(3):
        expected = game.w().detach() + game.dense_move(rates)
        returned = optimizer.step(game.losses if number else game.losses())
        assert len(returned) == count
        assert_close(game.w().detach(), expected, f"step {number}")


def test_adaptive_steps_are_the_dense_ones() -> None:
    game = ManyPlayers(3)
    optimizer = PolymatrixCGD(
        [[param] for param in game.params], lr=0.03, beta=0.9, eps=1e-3, solver=TIGHT
    )
    average = torch.zeros_like(game.w())
    for number in range(1, 5):
        game.dense_move(torch.ones_like(average))
        average = 0.9 * average + 0.1 * game.xi**2
        rates = 0.03 * (1 - 0.9**number) ** 0.5 / (average.sqrt() + 1e-3)
        expected = game.w().detach() + game.dense_move(rates)
        optimizer.step(game.losses())
        assert_close(game.w().detach(), expected, f"step {number}")


@pytest.mark.parametrize("beta", [None, 0.99], ids=["constant", "adaptive"])
def test_two_players_take_the_steps_of_cgd(beta: float | None) -> None:
    game, twin = NetworkGame(torch.float64), NetworkGame(torch.float64)
    optimizer = PolymatrixCGD(
        [game.min_params, game.max_params], lr=(0.05, 0.02), beta=beta, solver=TIGHT
    )
    cls = CGD if beta is None else ACGD
    other = cls(twin.min_params, twin.max_params, lr=(0.05, 0.02), solver=DirectSolver())
    for batch in range(3):
        loss = game.loss(batch)
        optimizer.step([loss, -loss])
        other.step(twin.loss(batch))
    for param, same in zip(all_params(optimizer), all_params(other), strict=True):
        assert_close(param.detach(), same.detach(), "parameter")
    general, same_game = GeneralGame(), GeneralGame()
    PolymatrixCGD([[general.x], [general.y]], lr=0.1, solver=TIGHT).step(general.losses())
    CGD([same_game.x], [same_game.y], lr=0.1, solver=TIGHT).step(same_game.losses())
    assert_close(general.w().detach(), same_game.w().detach(), "general-sum step")


@pytest.mark.parametrize("how", ["file", "deepcopy", "pickle"])
@pytest.mark.parametrize("beta", [None, 0.9])
def test_resumed_run_is_bitwise_the_uninterrupted_one(beta: float | None, how: str) -> None:
    def start() -> tuple[ManyPlayers, PolymatrixCGD]:
        game = ManyPlayers(3)
        return game, PolymatrixCGD([[p] for p in game.params], lr=0.05, beta=beta)

    def run(game: ManyPlayers, optimizer: PolymatrixCGD, count: int) -> None:
        for _ in range(count):
            optimizer.step(game.losses)

    straight, stopped = start(), start()
    run(*straight, 6)
    run(*stopped, 3)
    if how == "file":
        resumed = start()
        with torch.no_grad():
            for param, old in zip(resumed[0].params, stopped[0].params, strict=True):
                param.copy_(old)
        resumed[1].load_state_dict(through_file(stopped[1].state_dict()))
    else:
        resumed = (
            copy.deepcopy(stopped) if how == "deepcopy" else pickle.loads(pickle.dumps(stopped))
        )
    run(*resumed, 3)
    assert_same_bits(snapshot(resumed[1]), snapshot(straight[1]))


def test_groups_schedulers_and_rebuild() -> None:
    game = ManyPlayers(3)
    optimizer = PolymatrixCGD(
        [[{"params": [game.params[0]], "lr": 0.5}], [game.params[1]], [game.params[2]]],
        lr=(0.1, 0.2, 0.3),
        solver=TIGHT,
        weight_decay=0.1,
    )
    assert [group["player"] for group in optimizer.param_groups] == [0, 1, 2]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.2, 0.3]
    rebuilt = PolymatrixCGD(optimizer.param_groups, **optimizer.defaults)
    assert repr(rebuilt) == repr(optimizer)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.1)
    optimizer.step(game.losses())
    scheduler.step()
    rates = torch.cat(
        [
            torch.full((n,), group["lr"], dtype=torch.float64)
            for n, group in zip(game.sizes, optimizer.param_groups, strict=True)
        ]
    )
    expected = game.w().detach() * (1 - 0.1 * rates) + game.dense_move(rates)
    optimizer.step(game.losses())
    assert_close(game.w().detach(), expected, "step")
    assert {optimizer.state[param]["step"].item() for param in game.params} == {2.0}


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda losses: losses[:2], ValueError, "each of the 3 players, got 2"),
        (lambda losses: losses[0], TypeError, "a list of one loss for each player"),
        (lambda losses: [*losses[:2], 1.0], TypeError, r"`losses\[2\]`.*float"),
        (lambda losses: [*losses[:2], losses[2].detach()], ValueError, "without a graph"),
    ],
)
def test_bad_losses_change_nothing(make: Any, error: type[Exception], match: str) -> None:
    game = ManyPlayers(3)
    optimizer = PolymatrixCGD([[param] for param in game.params])
    losses = make(game.losses())
    before = snapshot(optimizer)
    with pytest.raises(error, match=match):
        optimizer.step(losses)
    assert_same_bits(snapshot(optimizer), before)


def test_bad_arguments() -> None:
    a, b = (torch.ones(2, requires_grad=True) for _ in range(2))
    for args, kwargs, error, match in (
        (([[a]],), {}, ValueError, "at least two players"),
        (([[a], []],), {}, ValueError, r"`params\[1\]` is empty"),
        (([[a], [a]],), {}, ValueError, "disjoint"),
        (([[a], b],), {}, TypeError, r"`params\[1\]`"),
        (([[a], [b]],), {"lr": (0.1, 0.1, 0.1)}, ValueError, "`lr`.*2 players"),
        (([[a], [b]],), {"beta": 1.0}, ValueError, "`beta`"),
        (([[a], [b]],), {"eps": -1.0}, ValueError, "`eps`"),
        (([[a], [b]],), {"solver": ConjugateGradient()}, TypeError, r"not symmetric.*GMRES\(\)"),
    ):
        with pytest.raises(error, match=match):
            PolymatrixCGD(*args, **kwargs)


def test_a_step_that_is_not_finite_is_not_taken_and_said_once() -> None:
    game = ManyPlayers(3)
    optimizer = PolymatrixCGD([[param] for param in game.params], beta=0.9)
    optimizer.step(game.losses())
    before = snapshot(optimizer)
    with pytest.warns(StepWarning, match="not taken"):
        optimizer.step([loss * float("nan") for loss in game.losses()])
    optimizer.step([loss * float("nan") for loss in game.losses()])
    assert_same_bits(snapshot(optimizer), before)
    optimizer.step(game.losses())
    assert optimizer.last_step.taken


def test_messages_speak_of_numbered_players() -> None:
    """None names arguments or players that two-player optimizers have."""
    x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
    loss = (x * y).sum()
    mistakes = (
        lambda: PolymatrixCGD([[{"params": [x], "maximize": True}], [y]]),
        lambda: PolymatrixCGD([[x], [y]], lr=-0.1),
        lambda: PolymatrixCGD([[x], [y]]).step([loss, (x * y.detach()).sum()]),
        lambda: PolymatrixCGD([[nn.Parameter(x.detach(), False)], [y]]).step([loss, -loss]),
    )
    for mistake in mistakes:
        words = r"negative as the loss|step\(losses, player="
        with pytest.raises(ValueError, match=words) as error:
            mistake()
        assert not re.search("(max|min)[_ ]|both", str(error.value))
    optimizer = PolymatrixCGD([[x], [y]])
    with pytest.raises(TypeError, match="`penalties` must be a list"):
        optimizer.step([loss, -loss], penalties=x.square().sum())  # type: ignore[arg-type]
    optimizer.step([(x * y.detach()).sum()] * 2, player=0)
    loss = (x * y).sum()
    optimizer.backward([loss, -loss])
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss)
    with pytest.raises(RuntimeError, match="takes no scaler"):
        scaler.step(optimizer)
