"""Descent-ascent by torch optimizers, slow weights and averages."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from covering import one_each
from dense_steps import assert_close
from games import NetworkGame, QuadraticGame
from snapshots import all_params, assert_same_bits, snapshot
from torch import Tensor
from torch.optim import lr_scheduler
from training_runs import through_file

from compopt import ACGD, CGD
from compopt.optim.rivals import (
    OGDA,
    AlternatingDescentAscent,
    ExtraAdam,
    LookaheadMinmax,
    SimultaneousDescentAscent,
    averaged,
)

CLASSES = [SimultaneousDescentAscent, AlternatingDescentAscent]
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
INNER: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "momentum": partial(torch.optim.SGD, momentum=0.9),
    "adam": partial(torch.optim.Adam, betas=(0.5, 0.9)),
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "pair": (torch.optim.Adam, torch.optim.SGD),
}


def by_hand(game: NetworkGame, inner: Any, order: tuple[tuple[str, ...], ...]) -> Callable:
    """Return a step of two torch optimizers; the players of a part of ``order`` move at once."""
    pair = inner if isinstance(inner, tuple) else (inner, inner)
    optimizers = {
        "min": pair[0](game.min_params, lr=0.02),
        "max": pair[1](game.max_params, lr=0.01),
    }

    def step(batch: int) -> None:
        for players in order:
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            game.loss(batch).backward()
            for param in game.max_params:
                param.grad.neg_()
            for player in players:
                optimizers[player].step()

    return step


@pytest.mark.parametrize("first", ["min", "max", None], ids=["min-first", "max-first", "at-once"])
@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_steps_are_those_of_two_torch_optimizers(inner: Any, first: str | None) -> None:
    game, twin = NetworkGame(torch.float64), NetworkGame(torch.float64)
    if first is None:
        cls, order = SimultaneousDescentAscent, (("min", "max"),)
    else:
        cls = partial(AlternatingDescentAscent, first=first)
        order = ((first,), ("max" if first == "min" else "min",))
    optimizer = cls(game.min_params, game.max_params, lr=(0.02, 0.01), optimizer=inner)
    step = by_hand(twin, inner, order)
    for batch in range(5):
        optimizer.step(partial(game.loss, batch))
        step(batch)
    assert all(param.grad is None for param in all_params(optimizer))
    ours, theirs = [*game.min_params, *game.max_params], [*twin.min_params, *twin.max_params]
    for param, other in zip(ours, theirs, strict=True):
        assert_close(param.detach(), other.detach(), "parameter")


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(("inner", "how"), one_each(INNER, ["file", "deepcopy", "pickle"]))
def test_resumed_run_is_bitwise_the_uninterrupted_one(cls: Any, inner: Any, how: str) -> None:
    def start() -> tuple[NetworkGame, Any]:
        game = NetworkGame()
        return game, cls(game.min_params, game.max_params, lr=(0.02, 0.01), optimizer=inner)

    def run(game: NetworkGame, optimizer: Any, first: int, last: int) -> None:
        for batch in range(first, last):
            optimizer.step(partial(game.loss, batch))

    straight = start()
    run(*straight, 0, 7)
    stopped = start()
    run(*stopped, 0, 3)
    if how == "file":
        resumed = start()
        run(*resumed, 0, 2)
        for name in ("generator", "critic"):
            getattr(resumed[0], name).load_state_dict(getattr(stopped[0], name).state_dict())
        resumed[1].load_state_dict(through_file(stopped[1].state_dict()))
    elif how == "deepcopy":
        resumed = copy.deepcopy(stopped)
    else:
        resumed = pickle.loads(pickle.dumps(stopped))
    kept = snapshot(stopped[1])
    assert_same_bits(snapshot(resumed[1]), kept)
    run(*resumed, 3, 7)
    assert_same_bits(snapshot(resumed[1]), snapshot(straight[1]))
    assert_same_bits(snapshot(stopped[1]), kept)


@each_class
def test_schedulers_hooks_and_groups(cls: Any) -> None:
    game = NetworkGame()
    calls = []
    optimizer = cls(
        [{"params": game.min_params[:2], "lr": 0.1}, {"params": game.min_params[2:]}],
        game.max_params,
        lr=(0.02, 0.01),
        optimizer=torch.optim.Adam,
    )
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.02, 0.01]
    assert all("betas" in group for group in optimizer.param_groups)
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.0)
    optimizer.step(game.loss)
    scheduler.step()
    before = [param.detach().clone() for param in all_params(optimizer)]
    optimizer.step(game.loss)
    assert all(map(torch.equal, all_params(optimizer), before))
    assert calls == [1, 1]
    late = torch.ones(2, requires_grad=True)
    optimizer.add_param_group({"params": [late], "player": "min", "lr": 0.5})
    optimizer.step(lambda: game.loss() + late.sum())
    assert bool((late < 1).all())
    rebuilt = cls(optimizer.param_groups, **optimizer.defaults)
    assert [g["lr"] for g in rebuilt.param_groups] == [g["lr"] for g in optimizer.param_groups]


@each_class
def test_frozen_parameters_stay(cls: Any) -> None:
    game = NetworkGame()
    game.generator[0].weight.requires_grad_(False)
    kept = game.generator[0].weight.clone()
    optimizer = cls(game.min_params, game.max_params, optimizer=torch.optim.Adam)
    optimizer.step(game.loss)
    assert torch.equal(game.generator[0].weight, kept)
    assert game.generator[0].weight not in optimizer.state


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("first", ["min", "max"])
def test_error_of_the_second_mover_undoes_the_first(first: str, after: int) -> None:
    game = NetworkGame()
    optimizer = AlternatingDescentAscent(
        game.min_params, game.max_params, optimizer=torch.optim.Adam, first=first
    )
    for batch in range(after):
        optimizer.step(partial(game.loss, batch))
    before, calls = snapshot(optimizer), []

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("batch")
        return game.loss()

    with pytest.raises(KeyError, match="batch"):
        optimizer.step(closure)
    assert_same_bits(snapshot(optimizer), before)


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"lr": -1.0}, ValueError, "`lr`"),
        ({"lr": "1"}, TypeError, "`lr`"),
        ({"optimizer": 3}, TypeError, "`optimizer` must be a class of torch.optim"),
        ({"optimizer": (torch.optim.SGD,)}, TypeError, "or a pair"),
        ({"first": "critic"}, ValueError, "`first` must be one of"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], error: type[Exception], match: str) -> None:
    game = QuadraticGame()
    with pytest.raises(error, match=match):
        AlternatingDescentAscent(game.min_params, game.max_params, **kwargs)


def test_alternating_needs_a_closure_and_neither_takes_foreign_gradients() -> None:
    game = QuadraticGame()
    optimizer = AlternatingDescentAscent(game.min_params, game.max_params)
    with pytest.raises(TypeError, match="needs a closure"):
        optimizer.step(game.loss())
    game.loss().backward()
    for cls in CLASSES:
        with pytest.raises(RuntimeError, match=r"Call `step\("):
            cls(game.min_params, game.max_params).step()


LOOKED_AFTER = {
    "cgd": lambda g: CGD(g.min_params, g.max_params, lr=0.05),
    "acgd": lambda g: ACGD(g.min_params, g.max_params, lr=0.01, warm_start=True),
    "extra-adam": lambda g: ExtraAdam(g.min_params, g.max_params, lr=0.01),
    "sgd": lambda g: SimultaneousDescentAscent(g.min_params, g.max_params, lr=0.05),
    "adam": lambda g: AlternatingDescentAscent(
        g.min_params, g.max_params, lr=0.01, optimizer=torch.optim.Adam
    ),
    "torch-adam": lambda g: torch.optim.SGD([*g.min_params, *g.max_params], lr=0.01),
}


@pytest.mark.parametrize("make", LOOKED_AFTER.values(), ids=LOOKED_AFTER)
def test_slow_weights_are_the_formula_and_resume_bitwise(make: Callable) -> None:
    def run(game: NetworkGame, optimizer: Any, first: int, last: int) -> None:
        for batch in range(first, last):
            closure = partial(game.loss, batch)
            if isinstance(optimizer, torch.optim.SGD):
                optimizer.zero_grad()
                closure().backward()
                optimizer.step()
            else:
                optimizer.step(closure)

    game, twin, third = NetworkGame(), NetworkGame(), NetworkGame()
    optimizer, other, resumed = make(game), make(twin), make(third)
    LookaheadMinmax(optimizer, interval=3, alpha=0.25)
    slow = [param.detach().clone() for param in all_params(other)]
    for number in range(2):
        run(twin, other, 3 * number, 3 * number + 3)
        with torch.no_grad():
            for param, s in zip(all_params(other), slow, strict=True):
                s.lerp_(param, 0.25)
                param.copy_(s)
    run(game, optimizer, 0, 4)
    # In the middle of an interval.
    for name in ("generator", "critic"):
        getattr(third, name).load_state_dict(getattr(game, name).state_dict())
    LookaheadMinmax(resumed, interval=3, alpha=0.25)
    resumed.load_state_dict(through_file(optimizer.state_dict()))
    for each in ((game, optimizer), (third, resumed)):
        run(*each, 4, 6)
        for param, expected in zip(all_params(each[1]), all_params(other), strict=True):
            assert torch.equal(param, expected)


def test_slow_weights_of_nothing_new_change_nothing_and_can_be_removed() -> None:
    game, twin = NetworkGame(), NetworkGame()
    optimizer, other = (OGDA(g.min_params, g.max_params, lr=0.05) for g in (game, twin))
    LookaheadMinmax(optimizer, interval=1, alpha=1.0)
    for batch in range(3):
        optimizer.step(game.loss(batch))
        other.step(twin.loss(batch))
    assert all(map(torch.equal, all_params(optimizer), all_params(other)))
    lookahead = LookaheadMinmax(other, interval=1, alpha=0.0)
    lookahead.remove()
    before = game.generator[0].weight.clone()
    other.step(twin.loss())
    assert not torch.equal(twin.generator[0].weight, before)


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"interval": 0}, ValueError),
        ({"interval": 1.5}, TypeError),
        ({"alpha": -0.1}, ValueError),
        ({"alpha": 1.1}, ValueError),
    ],
)
def test_bad_lookahead(kwargs: dict[str, Any], error: type[Exception]) -> None:
    game = QuadraticGame()
    optimizer = OGDA(game.min_params, game.max_params)
    with pytest.raises(error, match=next(iter(kwargs))):
        LookaheadMinmax(optimizer, **kwargs)
    with pytest.raises(TypeError, match="torch optimizer"):
        LookaheadMinmax(game)


@pytest.mark.parametrize("decay", [None, 0.75])
def test_averages(decay: float | None) -> None:
    game = NetworkGame(torch.float64)
    optimizer = OGDA(game.min_params, game.max_params, lr=0.05)
    average = averaged(game.generator, decay=decay)
    seen = []
    for batch in range(4):
        optimizer.step(game.loss(batch))
        average.update_parameters(game.generator)
        seen.append(game.generator[0].weight.detach().clone())
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.75 * expected + 0.25 * weight
    if decay is None:
        expected = torch.stack(seen).mean(0)
    assert_close(average.module[0].weight.detach(), expected, "average")
    with pytest.raises(ValueError, match="`decay`"):
        averaged(game.generator, decay=1.0)
