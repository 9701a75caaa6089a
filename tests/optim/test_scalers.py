"""A step on a loss or on gradients that a ``GradScaler`` has scaled is the right one, or refused.

What a message says is followed literally, and then gives the step of the unscaled loss.
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from covering import pairwise
from dense_steps import assert_close
from every_optimizer import EVERY, KINDS, Entry, each_kind
from games import QuadraticGame
from optimizer_registry import COMPETITIVE_KINDS, OptimizerInfo, each_competitive
from snapshots import all_params, assert_same_bits, snapshot
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from compopt import CGD, GMRES, Game, MicroBatches

SCALE = 2.0**10
BY_HAND = r"`(loss.*|min_penalty)` has been multiplied by the scale of a `GradScaler`, 1024"


def new_scaler(scale: float = SCALE) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    # It makes its scale when it first needs it.
    scaler.scale(torch.ones(()))
    return scaler


def assert_same_params(optimizer: Any, twin: Any) -> None:
    for param, other in zip(all_params(optimizer), all_params(twin), strict=True):
        assert_close(param.detach(), other.detach(), "parameter")


SPELLINGS: dict[str, Callable[[torch.amp.GradScaler, Tensor], Any]] = {
    "scale": lambda scaler, loss: scaler.scale(loss),
    "number": lambda scaler, loss: scaler.get_scale() * loss,
    "weighted": lambda scaler, loss: -scaler.scale(-loss / 2),
    "list": lambda scaler, loss: scaler.scale([loss, loss])[0],
    "game": lambda scaler, loss: Game(scaler.scale(loss)),
    "sum": lambda scaler, loss: scaler.scale(loss) + scaler.scale(loss),
    "penalty": lambda scaler, loss: Game(loss, min_penalty=scaler.scale(loss)),
    "micro-batches": lambda scaler, loss: MicroBatches([scaler.scale(loss), scaler.scale(loss)]),
}


@pytest.mark.parametrize(
    ("entry", "spelling"),
    [
        pytest.param(entry, spelling, id=f"{entry.name}-{spelling}")
        for entry in EVERY
        if entry in KINDS or entry.name == "OGDA"
        # One of each form of a step is tried on all.
        for spelling in (SPELLINGS if entry.name in ("OGDA", "ACGD") else ("scale",))
    ],
)
def test_a_step_on_a_loss_scaled_by_hand_is_refused(entry: Entry, spelling: str) -> None:
    game, optimizer = entry.start()
    scaler = new_scaler()
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=BY_HAND):
        entry.step(optimizer, lambda: SPELLINGS[spelling](scaler, game.loss()))
    assert_same_bits(snapshot(optimizer), before)
    twin_game, twin = entry.start()
    entry.step(optimizer, game.loss)
    entry.step(twin, twin_game.loss)
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@each_kind
def test_a_scale_that_comes_later_is_refused(entry: Entry) -> None:
    """Of a scaler that is older than the first step, and of one that is younger."""
    scaler = new_scaler()
    game, optimizer = entry.start()
    entry.step(optimizer, game.loss)
    before = snapshot(optimizer)
    for each in (scaler, new_scaler()):
        for spelling in ("scale", "number", "weighted"):
            scaled = partial(SPELLINGS[spelling], each)
            with pytest.raises(ValueError, match=BY_HAND):
                entry.step(optimizer, lambda scaled=scaled: scaled(game.loss()))
    assert_same_bits(snapshot(optimizer), before)
    del scaler, each, scaled
    entry.step(optimizer, lambda: SCALE * game.loss())


@each_competitive
def test_a_scale_that_comes_after_a_first_backward_is_refused(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer, scaler = info.exact(game), new_scaler()
    for _ in range(2):
        optimizer.backward(game.loss())
        optimizer.step()
    with pytest.raises(ValueError, match=BY_HAND):
        optimizer.backward(scaler.scale(game.loss()))


def test_a_look_for_scalers_is_not_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    game = QuadraticGame()
    optimizer = CGD(game.min_params, game.max_params)
    scaler = new_scaler()
    optimizer.step(game.loss())
    monkeypatch.setattr(gc, "get_referrers", lambda *_: pytest.fail("objects were looked through"))
    for _ in range(2):
        optimizer.step(32.0 * game.loss())
    assert scaler.is_enabled()


def test_a_scaler_of_a_class_that_comes_later_is_found() -> None:
    game = QuadraticGame()
    optimizer = CGD(game.min_params, game.max_params)
    optimizer.step(game.loss())

    class Scaler(torch.amp.GradScaler):
        pass

    scaler = Scaler("cpu", init_scale=SCALE)
    with pytest.raises(ValueError, match=BY_HAND):
        optimizer.step(scaler.scale(game.loss()))


def test_a_scaled_pair_is_refused() -> None:
    game = QuadraticGame()
    optimizer = CGD(game.min_params, game.max_params, solver=GMRES())
    pair = (game.loss(), -2 * game.loss())
    with pytest.raises(ValueError, match=BY_HAND):
        optimizer.step(new_scaler().scale(pair))


@pytest.mark.parametrize("player", ["min", "max"])
def test_a_scaled_step_of_one_player_is_refused(player: str) -> None:
    game, scaler = QuadraticGame(), new_scaler()
    optimizer = CGD(game.min_params, game.max_params)
    optimizer.step(game.loss())
    with pytest.raises(ValueError, match=BY_HAND):
        optimizer.step(scaler.scale(game.loss()), player=player)


@each_kind
def test_factors_that_are_no_scale_are_taken(entry: Entry) -> None:
    _ = new_scaler(), torch.amp.GradScaler("cpu", init_scale=32.0, enabled=False)
    game, optimizer = entry.start()
    entry.step(optimizer, lambda: torch.tensor(0.5) * game.loss() + 32 * game.loss())


@pairwise(
    info=COMPETITIVE_KINDS,
    init_scale=[2.0**4, 2.0**16],
    has_scaler={"by-hand": False, "twice": True},
    unscale={"step": False, "unscale-step": True},
)
def test_backward_of_a_loss_scaled_by_hand_is_refused(
    info: OptimizerInfo, init_scale: float, has_scaler: bool, unscale: bool
) -> None:
    game, twin_game = QuadraticGame(), QuadraticGame()
    optimizer, twin = info.exact(game), info.exact(twin_game)
    scaler = new_scaler(init_scale)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"`optimizer.backward\(loss, scaler=scaler\)`"):
        optimizer.backward(scaler.scale(game.loss()), scaler=scaler if has_scaler else None)
    assert_same_bits(snapshot(optimizer), before)
    optimizer.backward(game.loss(), scaler=scaler)
    if unscale:
        scaler.unscale_(optimizer)
        optimizer.step()
    else:
        scaler.step(optimizer)
    scaler.update()
    twin.step(twin_game.loss())
    assert_same_params(optimizer, twin)


@each_competitive
def test_scaler_of_one_that_got_no_scaler_is_refused(info: OptimizerInfo) -> None:
    game, twin_game = QuadraticGame(), QuadraticGame()
    optimizer, twin = info.exact(game), info.exact(twin_game)
    scaler = new_scaler(1.0)
    optimizer.backward(scaler.scale(game.loss()))
    with pytest.raises(RuntimeError, match=r"`optimizer.backward\(loss, scaler=scaler\)`"):
        scaler.step(optimizer)
    optimizer.zero_grad()
    optimizer.backward(game.loss(), scaler=scaler)
    scaler.step(optimizer)
    twin.step(twin_game.loss())
    assert_same_params(optimizer, twin)


def step_alone(optimizer: Any, scaler: torch.amp.GradScaler) -> None:
    optimizer.step()


def closure_of_none(optimizer: Any, scaler: torch.amp.GradScaler) -> None:
    optimizer.step(lambda: None)


def another_scaler(optimizer: Any, scaler: torch.amp.GradScaler) -> None:
    new_scaler(8.0).step(optimizer)


def clipped(optimizer: Any, scaler: torch.amp.GradScaler) -> None:
    torch.nn.utils.clip_grad_norm_(all_params(optimizer), 100.0)
    optimizer.step()


REMEDIES: dict[str, Callable[[Any, torch.amp.GradScaler], None]] = {
    "step": lambda optimizer, scaler: scaler.step(optimizer),
    "unscale": lambda optimizer, scaler: (scaler.unscale_(optimizer), optimizer.step()),
}


@pairwise(
    info=COMPETITIVE_KINDS,
    take={f.__name__: f for f in (step_alone, closure_of_none, another_scaler, clipped)},
    remedy=list(REMEDIES),
)
def test_gradients_that_are_still_scaled_are_refused(
    info: OptimizerInfo, take: Any, remedy: str
) -> None:
    game, twin_game = QuadraticGame(), QuadraticGame()
    optimizer, twin = info.exact(game), info.exact(twin_game)
    scaler = new_scaler()
    optimizer.backward(game.loss(), scaler=scaler)
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match=r"are still scaled. Call `scaler.step\(optimizer\)`"):
        take(optimizer, scaler)
    assert_same_bits(snapshot(optimizer), before)
    if take not in (step_alone, closure_of_none):
        # The gradients have become others.
        optimizer.zero_grad()
        optimizer.backward(game.loss(), scaler=scaler)
    REMEDIES[remedy](optimizer, scaler)
    scaler.update()
    twin.step(twin_game.loss())
    assert_same_params(optimizer, twin)


@each_competitive
def test_an_update_between_the_phases_is_refused(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    scaler = new_scaler()
    optimizer.backward(game.loss(), scaler=scaler)
    scaler.update(2.0)
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match=r"another scale now, 2, than .* 1024"):
        scaler.step(optimizer)
    assert_same_bits(snapshot(optimizer), before)


@each_competitive
def test_a_scaler_that_was_not_updated_is_refused(info: OptimizerInfo) -> None:
    """It would not unscale the new gradients."""
    game, twin_game = QuadraticGame(), QuadraticGame()
    optimizer, twin = info.exact(game), info.exact(twin_game)
    scaler = new_scaler()
    optimizer.backward(game.loss(), scaler=scaler)
    scaler.unscale_(optimizer)
    optimizer.zero_grad()
    with pytest.raises(RuntimeError, match=r"Call `scaler.update\(\)` before"):
        optimizer.backward(game.loss(), scaler=scaler)
    scaler.update()
    optimizer.backward(game.loss(), scaler=scaler)
    scaler.step(optimizer)
    twin.step(twin_game.loss())
    assert_same_params(optimizer, twin)


@each_kind
def test_a_backward_of_a_scaled_loss_is_refused(entry: Entry) -> None:
    game, optimizer = entry.start()
    scaler = new_scaler()
    scaler.scale(game.loss()).backward()
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match=r"found gradients but no graph.*[Ll]oss"):
        scaler.step(optimizer)
    assert_same_bits(snapshot(optimizer), before)


def test_factors_that_cannot_be_read_are_passed_over() -> None:
    game = QuadraticGame()
    optimizer = CGD(game.min_params, game.max_params)
    loss = 32.0 * game.loss()
    with FlopCounterMode(display=False):
        optimizer.step(loss)
    assert optimizer.last_step.taken
