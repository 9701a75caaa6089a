"""Losses and penalties that must be refused, and that refusing them changes nothing."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from games import NetworkGame, QuadraticGame
from optimizer_registry import (
    ENTRIES,
    OPTIMIZERS,
    OptimizerInfo,
    each_competitive_kind,
    each_entry,
)
from snapshots import all_params, assert_same_bits, snapshot
from torch import Tensor, nn

from compopt import CGD, Game, MicroBatches
from compopt.optim.rivals import OGDA, SimultaneousDescentAscent


def backward_by_the_user(game: QuadraticGame) -> Tensor:
    loss = game.loss()
    loss.backward()
    return loss.detach()


def freed_loss(game: NetworkGame) -> Tensor:
    loss = game.loss()
    torch.autograd.grad(loss, game.min_params)
    return loss


def stale_loss(game: NetworkGame) -> Tensor:
    loss = game.loss()
    with torch.no_grad():
        for param in game.max_params:
            param.add_(1.0)
    return loss


# What is passed as a loss, made from a game; the error; its message; the penalties.
LOSSES: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "constant": (lambda game: torch.tensor(1.0), ValueError, "`loss`.*without a graph"),
    "detached": (lambda game: game.loss().detach(), ValueError, "manual-optimization"),
    "backward-called": (lambda game: lambda: backward_by_the_user(game), ValueError, "backward"),
    "vector": (
        lambda game: game.loss() * torch.ones(3),
        ValueError,
        r"`loss` must be a real scalar.*shape \(3,\).*`.mean\(\)`",
    ),
    "empty": (lambda game: game.loss() * torch.ones(0), ValueError, r"shape \(0,\)"),
    "integer": (lambda game: torch.tensor(1), ValueError, "torch.int64"),
    "bool": (lambda game: game.loss() > 0, ValueError, "torch.bool"),
    "complex": (lambda game: game.loss() * 1j, ValueError, "torch.complex64"),
    "meta": (lambda game: game.loss().to("meta"), ValueError, "device.*cpu, got meta"),
    "float": (lambda game: game.loss().item(), TypeError, "`loss` must be a scalar.*float"),
    "closure-of-none": (lambda game: lambda: None, TypeError, "got NoneType"),
    "closure-of-float": (lambda game: lambda: 1.0, TypeError, "got float"),
    "closure-of-closure": (lambda game: lambda: game.loss, TypeError, "got method"),
    "dictionary": (lambda game: {"loss": game.loss()}, TypeError, "got dict"),
    "no-micro-batch": (lambda game: MicroBatches([]), ValueError, "at least one loss, got none"),
    "micro-batch-of-float": (lambda game: MicroBatches([game.loss(), 1.0]), TypeError, "got float"),
    "micro-batch-detached": (
        lambda game: MicroBatches([game.loss(), game.loss().detach()]),
        ValueError,
        "without a graph",
    ),
    "micro-batch-vector": (
        lambda game: MicroBatches([game.loss().expand(2)]),
        ValueError,
        r"shape \(2,\)",
    ),
    "micro-batch-meta": (
        lambda game: MicroBatches([game.loss(), game.loss().to("meta")]),
        ValueError,
        "got meta",
    ),
    "micro-batches-of-two-forms": (
        lambda game: MicroBatches([Game(game.loss(), game.loss()), game.loss()]),
        ValueError,
        "one kind, got `min_penalty` in 1 of 2",
    ),
    "list": (
        lambda game: [game.loss(), -game.loss()],
        TypeError,
        r"got a list of 2. .*tuple, `\(min_loss, max_loss\)`.*`compopt.MicroBatches",
    ),
    "list-of-one": (lambda game: [game.loss()], TypeError, "a list of 1.*MicroBatches"),
    "closure-of-list": (lambda game: lambda: [game.loss()], TypeError, "a list of 1.*MicroBatches"),
    "generator": (
        lambda game: (game.loss(batch) for batch in range(2)),
        TypeError,
        "got a generator.*MicroBatches",
    ),
    "game-of-none": (lambda game: Game(None), TypeError, "`loss`.*got NoneType"),
    "game-of-constant": (lambda game: Game(torch.tensor(1.0)), ValueError, "without a graph"),
    "game-of-float-penalty": (lambda game: Game(game.loss(), 1.0), TypeError, "`min_penalty`"),
    "game-of-constant-penalty": (
        lambda game: Game(game.loss(), None, torch.tensor(1.0)),
        ValueError,
        "`max_penalty`.*without a graph",
    ),
    "game-of-vector-penalty": (
        lambda game: Game(game.loss(), game.loss().expand(2)),
        ValueError,
        r"`min_penalty`.*shape \(2,\)",
    ),
    "game-of-meta-penalty": (
        lambda game: Game(game.loss(), game.loss().to("meta")),
        ValueError,
        "`min_penalty`.*got meta",
    ),
    "without-the-max-player": (
        lambda game: sum(param.square().sum() for param in game.min_params),
        ValueError,
        "both players; none of the max player's",
    ),
    "without-the-min-player": (
        lambda game: game.critic(game.real[0]).mean(),
        ValueError,
        "both players; none of the min player's",
    ),
    "freed-graph": (freed_loss, RuntimeError, "a second time"),
    "stale-graph": (stale_loss, RuntimeError, "modified by an inplace operation"),
}


def is_bad(case: str, info: OptimizerInfo) -> bool:
    """Return whether the optimizer refuses it: closures make new graphs."""
    return case != "stale-graph" or not info.needs_closure


def tries() -> list[Any]:
    """Return each loss with one way to take it, after 0 and 2 steps."""
    cases = []
    for number, case in enumerate(LOSSES):
        able = [entry for entry in ENTRIES if is_bad(case, ENTRIES[entry][0])]
        entry = able[number % len(able)]
        after = number // len(ENTRIES) % 2 * 2
        cases.append(pytest.param(entry, case, after, id=f"{entry}-{case}"))
    return cases


@pytest.mark.parametrize(("entry", "case", "after"), tries())
def test_bad_losses_change_nothing(entry: str, case: str, after: int) -> None:
    (info, method), (make, error, match) = ENTRIES[entry], LOSSES[case]
    game, twin_game = NetworkGame(), NetworkGame()
    optimizer, twin = (info.build(g, lr=0.05, warm_start=True) for g in (game, twin_game))
    for step in range(after):
        optimizer.step(partial(game.loss, step))
    loss = info.argument(lambda: make(game))
    before = snapshot(optimizer)
    with pytest.raises(error, match=match):
        getattr(optimizer, method)(loss)
    assert_same_bits(snapshot(optimizer), before)
    assert not (after == 0 and optimizer.state)
    if info.is_competitive:
        assert hasattr(optimizer, "last_step") == (after > 0)
    if case == "stale-graph":
        return
    # The optimizer works on as if nothing had happened.
    optimizer.step(partial(game.loss, after))
    for step in range(after + 1):
        twin.step(partial(twin_game.loss, step))
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@pytest.mark.parametrize("player", ["min", "max"])
@each_entry
def test_penalty_given_twice(info: OptimizerInfo, player: str, method: str) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    penalty = {f"{player}_penalty": game.params(player)[0].sum()}
    if info.needs_closure:
        match = f"{info.name} evaluates the penalties at another point as well"
    else:
        match = f"`{player}_penalty` is given in the `Game` and as an"
    with pytest.raises(ValueError, match=match):
        getattr(optimizer, method)(info.argument(lambda: Game(game.loss(), **penalty)), **penalty)
    assert len(optimizer.state) == 0


@each_entry
def test_error_of_the_closure_is_passed_on(info: OptimizerInfo, method: str) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    before = snapshot(optimizer)

    def closure() -> Tensor:
        raise KeyError("batch")

    with pytest.raises(KeyError, match="batch"):
        getattr(optimizer, method)(closure)
    assert_same_bits(snapshot(optimizer), before)
    assert torch.is_grad_enabled()


@each_entry
def test_sparse_gradients_are_refused(info: OptimizerInfo, method: str) -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    critic = torch.ones(2, requires_grad=True)
    optimizer = info.cls(embedding.parameters(), [critic])
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"dense.*`sparse=False`"):
        getattr(optimizer, method)(lambda: (embedding(torch.tensor([0, 1])) @ critic).sum())
    assert_same_bits(snapshot(optimizer), before)


@each_competitive_kind
def test_backward_needs_a_loss(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    with pytest.raises(TypeError, match="got NoneType"):
        optimizer.backward(None)
    assert all(param.grad is None for param in all_params(optimizer))


def test_losses_of_two_players_are_no_micro_batches() -> None:
    x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
    for optimizer in (CGD([x], [y]), OGDA([x], [y]), SimultaneousDescentAscent([x], [y])):
        optimizer.step((x * y).sum())
        losses = [(x * y.detach()).sum(), (x.detach() * y).sum()]
        with pytest.raises(ValueError, match=r"first on min, number 1 on max.*as a pair"):
            optimizer.step(MicroBatches(losses))
        optimizer.step(MicroBatches([(x * y).sum(), 2 * (x * y).sum()]))
    assert x.item() != 1.0
    with pytest.raises(TypeError, match=r"got Tensor.*`.mean\(\)`"):
        MicroBatches((x * y).sum())


@pytest.mark.parametrize("swapped", [False, True])
def test_losses_of_two_networks_are_no_micro_batches(swapped: bool) -> None:
    """The graph of each leads to other nodes than parameters as well."""
    generator, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    fake = generator(torch.ones(3, 2))
    losses = [-critic(fake).mean(), critic(fake.detach()).mean()]
    optimizer = CGD(generator.parameters(), critic.parameters())
    with pytest.raises(ValueError, match=r"min and max.*as a pair"):
        optimizer.step(MicroBatches(losses[::-1] if swapped else losses))
    pairs = [losses, losses[::-1]]
    with pytest.raises(ValueError, match="of one kind, got some that depend on different players"):
        optimizer.step(MicroBatches((first, second) for first, second in pairs))


def test_a_penalty_that_its_player_has_no_part_in_is_refused() -> None:
    for info in OPTIMIZERS:
        game = QuadraticGame()
        optimizer = info.build(game)
        before = snapshot(optimizer)

        def loss(game: QuadraticGame = game) -> Game:
            return Game(game.loss(), max_penalty=game.min_params[0].square().sum())

        with pytest.raises(ValueError, match="`max_penalty` must depend on parameters of the max"):
            optimizer.step(info.argument(loss))
        assert_same_bits(snapshot(optimizer), before)
