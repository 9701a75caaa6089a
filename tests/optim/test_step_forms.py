from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from dense_steps import DenseReference, assert_close, assert_dense_step
from games import NetworkGame, QuadraticGame, flat
from optimizer_registry import (
    KINDS,
    OptimizerInfo,
    each_competitive_kind,
    each_kind,
    each_kind_of_one_point,
)
from snapshots import assert_same_bits, bits, snapshot
from torch import Tensor, nn

from compopt import Game, MicroBatches

FORMS: dict[str, Callable[[torch.optim.Optimizer, Callable[[], Tensor]], Any]] = {
    "loss": lambda opt, loss: opt.step(loss()),
    "loss-keyword": lambda opt, loss: opt.step(closure=loss()),
    "closure": lambda opt, loss: opt.step(loss),
    "closure-keyword": lambda opt, loss: opt.step(closure=loss),
    "game": lambda opt, loss: opt.step(Game(loss())),
    "closure-of-game": lambda opt, loss: opt.step(lambda: Game(loss())),
    "micro-batch": lambda opt, loss: opt.step(MicroBatches([loss()])),
    "closure-of-micro-batch": lambda opt, loss: opt.step(lambda: MicroBatches([loss()])),
    "one-element-vector": lambda opt, loss: opt.step(loss().reshape(1)),
    "one-element-matrix": lambda opt, loss: opt.step(loss().reshape(1, 1)),
    "backward": lambda opt, loss: (opt.backward(loss()), opt.step())[0],
    "backward-closure": lambda opt, loss: (opt.backward(loss), opt.step())[0],
    "backward-game": lambda opt, loss: (opt.backward(Game(loss())), opt.step())[0],
    "backward-micro-batch": lambda opt, loss: (opt.backward(MicroBatches([loss()])), opt.step())[0],
}


# The others have the same `step`.
FORMED = [info for info in KINDS if info.name in ("ACGD", "OptimisticAdam", "ExtraAdam")]


def takes(info: OptimizerInfo, form: str) -> bool:
    if "backward" in form:
        return info.is_competitive
    return not info.needs_closure or "closure" in form


@pytest.mark.parametrize(
    ("info", "form"),
    [
        pytest.param(info, form, id=f"{info.name}-{form}")
        for info in FORMED
        for form in FORMS
        if takes(info, form)
    ],
)
def test_every_form_takes_the_same_step(info: OptimizerInfo, form: str) -> None:
    game, twin_game = NetworkGame(), NetworkGame()
    optimizer = info.build(game, lr=0.05, warm_start=True)
    twin = info.build(twin_game, lr=0.05, warm_start=True)
    for step in range(3):
        returned = FORMS[form](optimizer, lambda batch=step: game.loss(batch))
        expected = twin.step(partial(twin_game.loss, step))
        assert not returned.requires_grad
        assert returned.item() == expected.item()
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@each_kind
def test_micro_batches_are_their_mean(info: OptimizerInfo) -> None:
    game, twin_game = NetworkGame(torch.float64), NetworkGame(torch.float64)
    optimizer = info.exact(game)
    twin = info.exact(twin_game)
    for _ in range(3):
        loss = optimizer.step(lambda: MicroBatches(game.loss(batch) for batch in range(4)))
        mean = twin.step(lambda: sum(twin_game.loss(batch) for batch in range(4)) / 4)
        assert_close(loss, mean.detach(), "loss")
    params = zip(
        [*game.min_params, *game.max_params],
        [*twin_game.min_params, *twin_game.max_params],
        strict=True,
    )
    for index, (param, other) in enumerate(params):
        assert_close(param.detach(), other.detach(), f"{info.name}, parameter {index}")


@each_kind
def test_mean_of_equal_halves_is_the_whole_batch(info: OptimizerInfo) -> None:
    game, twin_game = NetworkGame(torch.float64), NetworkGame(torch.float64)
    halves = [NetworkGame(torch.float64) for _ in range(2)]
    for half, where in zip(halves, (slice(0, 8), slice(8, 16)), strict=True):
        half.generator, half.critic = game.generator, game.critic
        half.noise, half.real = half.noise[:, where], half.real[:, where]
    info.exact(game).step(lambda: MicroBatches(half.loss() for half in halves))
    info.exact(twin_game).step(twin_game.loss)
    for param, other in zip(game.max_params, twin_game.max_params, strict=True):
        assert_close(param.detach(), other.detach(), info.name)


@each_kind_of_one_point
def test_micro_batches_of_games_are_averaged_term_by_term(info: OptimizerInfo) -> None:
    game, twin_game = QuadraticGame(), QuadraticGame()
    terms = quadratic_penalties(game)
    games = [Game(k * game.loss(), *(k**2 * term for term in terms)) for k in (1.0, 3.0)]
    loss = info.exact(game).step(MicroBatches(games))
    assert_close(loss, 2 * twin_game.loss().detach(), "loss")
    info.exact(twin_game).step(
        Game(2 * twin_game.loss(), *(5 * term for term in quadratic_penalties(twin_game)))
    )
    for player in ("min", "max"):
        params, twin = (flat(g.params(player)).detach() for g in (game, twin_game))
        assert_close(params, twin, f"{info.name}, {player}")


@each_kind
def test_closure_runs_with_gradients_enabled(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        return game.loss()

    with torch.no_grad():
        optimizer.step(closure)
    if info.is_competitive:
        optimizer.backward(closure)
        assert calls == [True, True]
    # Twice where there is a second point, which the closed forms show.
    assert all(calls)
    assert len(calls) in ((1, 2) if info.needs_closure else (1 + info.is_competitive,))


def quadratic_penalties(game: QuadraticGame) -> tuple[Tensor, Tensor]:
    """Return a term of each player that also holds the other player's parameters."""
    x, y = flat(game.min_params), flat(game.max_params)
    return 0.5 * x @ x + 3 * x.sum() * y.sum(), y @ y - 2 * x.sum() * y.sum()


def penalty_grads(game: QuadraticGame) -> dict[str, Tensor]:
    x, y = flat(game.min_params).detach(), flat(game.max_params).detach()
    ones = torch.ones_like
    return {"min": x + 3 * y.sum() * ones(x), "max": 2 * y - 2 * x.sum() * ones(y)}


PENALTY_FORMS: dict[str, Callable[..., Any]] = {
    "arguments": lambda opt, f, p, q: opt.step(f, min_penalty=p, max_penalty=q),
    "game": lambda opt, f, p, q: opt.step(Game(f, p, q)),
    "closure-of-game": lambda opt, f, p, q: opt.step(lambda: Game(f, p, q)),
    "game-and-argument": lambda opt, f, p, q: opt.step(Game(f, max_penalty=q), min_penalty=p),
    "closure-and-arguments": lambda opt, f, p, q: opt.step(lambda: f, min_penalty=p, max_penalty=q),
    "backward": lambda opt, f, p, q: (
        opt.backward(f, min_penalty=p, max_penalty=q),
        opt.step(),
    ),
}


@pytest.mark.parametrize(
    ("info", "form"),
    [
        pytest.param(info, form, id=f"{info.name}-{form}")
        for info in FORMED
        for form in PENALTY_FORMS
        if not info.needs_closure and (info.is_competitive or form != "backward")
    ],
)
def test_penalties_add_to_the_own_gradient_alone(info: OptimizerInfo, form: str) -> None:
    """They couple the players here, and still leave the mixed derivatives as the loss's."""
    game = QuadraticGame()
    optimizer = info.exact(game, lr=0.05)
    reference = DenseReference(info, game)
    for _ in range(3):
        assert_dense_step(
            info,
            optimizer,
            reference,
            lambda: PENALTY_FORMS[form](optimizer, game.loss(), *quadratic_penalties(game)),
            extra=penalty_grads(game),
        )


@pytest.mark.parametrize("player", ["min", "max"])
@each_kind_of_one_point
def test_one_penalty_leaves_the_other_player_its_gradient(info: OptimizerInfo, player: str) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game, lr=0.05)
    index = ("min", "max").index(player)

    def step() -> None:
        penalty = quadratic_penalties(game)[index]
        optimizer.step(game.loss(), **{f"{player}_penalty": penalty})

    extra = {player: penalty_grads(game)[player]}
    assert_dense_step(info, optimizer, DenseReference(info, game), step, extra=extra)


@each_competitive_kind
def test_penalty_may_be_the_only_term_of_a_player(info: OptimizerInfo) -> None:
    """With the loss free of the max player, both players take plain gradient steps."""
    game = QuadraticGame()
    optimizer = info.exact(game, lr=0.05)
    x, y = flat(game.min_params), flat(game.max_params)
    game.mixed, game.q = torch.zeros_like(game.mixed), torch.eye(3, dtype=torch.float64)
    game.b = torch.zeros(3, dtype=torch.float64)

    def step() -> None:
        optimizer.step(x @ game.p @ x / 2 + game.a @ x, max_penalty=y @ y / 2)

    assert_dense_step(info, optimizer, DenseReference(info, game), step)


@each_competitive_kind
def test_gradient_penalty_as_a_term_of_the_critic(info: OptimizerInfo) -> None:
    """A term that holds gradients itself: its gradient is right, without a third derivative."""
    game, twin_game = NetworkGame(torch.float64), NetworkGame(torch.float64)
    optimizer = info.exact(game)

    def gradient_penalty(game: NetworkGame) -> Tensor:
        points = game.real[0].clone().requires_grad_()
        (grads,) = torch.autograd.grad(game.critic(points).sum(), points, create_graph=True)
        return (grads.norm(dim=1) - 1).square().mean()

    optimizer.backward(game.loss(), max_penalty=gradient_penalty(game))
    (gradient_penalty(twin_game) - twin_game.loss()).backward()
    for param, twin in zip(game.max_params, twin_game.max_params, strict=True):
        assert_close(param.grad, twin.grad, "own gradient of the critic")
    optimizer.step()
    assert optimizer.last_step.taken


@each_kind_of_one_point
def test_penalty_without_a_part_in_some_parameters(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    extra = torch.zeros(5, dtype=torch.float64)
    extra[:2] = 2 * game.min_params[0].detach()

    def step() -> None:
        optimizer.step(game.loss(), min_penalty=game.min_params[0].square().sum())

    assert_dense_step(info, optimizer, DenseReference(info, game), step, extra={"min": extra})


@each_kind_of_one_point
def test_loss_may_be_used_after_the_step(info: OptimizerInfo) -> None:
    """What the step retains of the user's graph is still there, and the loss keeps its value."""
    game = NetworkGame()
    optimizer = info.build(game, lr=0.05)
    noise = game.noise[0].clone().requires_grad_()
    loss = game.critic(game.generator(noise)).mean()
    value = loss.item()
    returned = optimizer.step(loss)
    assert returned.item() == loss.item() == value
    assert loss.requires_grad


@each_kind_of_one_point
def test_batch_norm_counts_the_forwards_of_the_user(info: OptimizerInfo) -> None:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    critic = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = info.cls(generator.parameters(), critic.parameters(), lr=0.05)
    noise, real = torch.randn(16, 2), torch.randn(16, 2)
    for step in range(1, 4):
        loss = critic(real).mean() - critic(generator(noise)).mean()
        buffers = {
            (index, name): bits(buffer)
            for index, network in enumerate((generator, critic))
            for name, buffer in network.named_buffers()
        }
        if step == 3 and info.is_competitive:
            optimizer.backward(loss)
            optimizer.step()
        else:
            optimizer.step(loss)
        assert generator[1].num_batches_tracked.item() == step
        assert critic[1].num_batches_tracked.item() == 2 * step
        for index, network in enumerate((generator, critic)):
            for name, buffer in network.named_buffers():
                assert torch.equal(bits(buffer), buffers[index, name]), name
