"""What goes on around a step: hooks, the profiler's name of it, subclasses."""

from typing import Any

import pytest
import torch
from dense_steps import DenseReference, assert_dense_step
from games import QuadraticGame
from optimizer_registry import OptimizerInfo, each_competitive, each_competitive_kind, each_kind
from snapshots import all_params, assert_same_bits, snapshot
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from compopt import CGD, DirectSolver
from compopt.optim.rivals import OGDA, SimultaneousDescentAscent


@each_kind
def test_hooks_of_the_step_fire_once(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer, other = info.exact(game), info.exact(QuadraticGame())
    calls: list[tuple[Any, ...]] = []

    def record(name: str) -> Any:
        return lambda opt, args, kwargs: calls.append((name, opt, args[1:], kwargs))

    optimizer.register_step_pre_hook(record("pre"))
    optimizer.register_step_post_hook(record("post"))
    handles = [
        register_optimizer_step_pre_hook(record("global pre")),
        register_optimizer_step_post_hook(record("global post")),
    ]
    try:
        optimizer.step(game.loss, min_penalty=None)
        other.step()
    finally:
        for handle in handles:
            handle.remove()
    arguments = ((game.loss,), {"min_penalty": None})
    assert calls == [
        ("global pre", optimizer, *arguments),
        ("pre", optimizer, *arguments),
        ("post", optimizer, *arguments),
        ("global post", optimizer, *arguments),
        ("global pre", other, (), {}),
        ("global post", other, (), {}),
    ]


@each_kind
def test_pre_hook_may_exchange_the_loss(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    optimizer.register_step_pre_hook(lambda opt, args, kwargs: ((opt, game.loss), kwargs))
    reference = DenseReference(info, game)
    assert_dense_step(info, optimizer, reference, lambda: optimizer.step(lambda: 0 * game.loss()))


@each_kind
def test_post_hook_sees_the_step_taken(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    before = [param.detach().clone() for param in all_params(optimizer)]
    seen = []
    optimizer.register_step_post_hook(
        lambda opt, args, kwargs: seen.append(
            [not torch.equal(p, old) for p, old in zip(all_params(opt), before, strict=True)]
        )
    )
    optimizer.step(game.loss)
    assert seen == [[True] * len(before)]


@each_kind
def test_profiler_shows_the_step_by_name(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer = info.exact(game)
    with torch.autograd.profiler.profile() as profile:
        optimizer.step(game.loss)
        optimizer.zero_grad()
    names = [event.name for event in profile.function_events]
    assert names.count(f"Optimizer.step#{info.name}.step") == 1
    assert names.count(f"Optimizer.zero_grad#{info.name}.zero_grad") == 1


@each_kind
def test_subclass_steps_once_and_keeps_its_name(info: OptimizerInfo) -> None:
    class Mine(info.cls):  # type: ignore[name-defined]
        pass

    game = QuadraticGame()
    kwargs = info.arguments(lr=0.1, solver=DirectSolver())
    optimizer = Mine(game.min_params, game.max_params, **kwargs)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    assert_dense_step(info, optimizer, DenseReference(info, game))
    assert calls == [1]
    assert repr(optimizer).startswith("Mine (")


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
@pytest.mark.parametrize("method", ["step", "backward"])
@each_competitive_kind
def test_hooks_on_parameters_are_refused(info: OptimizerInfo, method: str, register: str) -> None:
    """Autograd would call them on every product; the remedy works on ``.grad``."""
    game = QuadraticGame()
    optimizer: Any = info.exact(game)
    handle = getattr(game.max_params[0], register)(lambda _: None)
    before = snapshot(optimizer)
    number = len(game.min_params)
    with pytest.raises(ValueError, match=rf"got one on parameter {number} of shape"):
        getattr(optimizer, method)(game.loss())
    assert_same_bits(snapshot(optimizer), before)
    handle.remove()
    optimizer.backward(game.loss())
    for param in (*game.min_params, *game.max_params):
        param.grad.clamp_(-0.1, 0.1)
    optimizer.step()
    assert optimizer.last_step.taken


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
@each_competitive
def test_hooks_added_between_the_phases_are_refused(info: OptimizerInfo, register: str) -> None:
    game, twin_game = QuadraticGame(), QuadraticGame()
    optimizer: Any = info.exact(game)
    twin: Any = info.exact(twin_game)
    for each, played in ((optimizer, game), (twin, twin_game)):
        each.backward(played.loss())
        each.step()
        each.backward(played.loss())
    handle = getattr(game.min_params[0], register)(lambda _: None)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"got one on parameter 0 of shape"):
        optimizer.step()
    assert_same_bits(snapshot(optimizer), before)
    handle.remove()
    optimizer.step()
    twin.step()
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@each_kind
def test_hooks_added_later_are_refused(info: OptimizerInfo) -> None:
    """Also by a closure, while it computes the loss."""
    game = QuadraticGame()
    optimizer = info.exact(game)
    optimizer.step(game.loss)
    before = snapshot(optimizer)
    handles = []

    def loss() -> Any:
        handles.append(game.max_params[0].register_post_accumulate_grad_hook(lambda _: None))
        return game.loss()

    with pytest.raises(ValueError, match="Remove it"):
        optimizer.step(loss)
    assert_same_bits(snapshot(optimizer), before)
    for handle in handles:
        handle.remove()
    optimizer.step(game.loss)


def test_hooks_on_parameters_see_each_gradient_whole_or_are_refused() -> None:
    """Also where nothing is differentiated twice: by first-order rivals, and one player alone."""
    alone = {"player": "min"}
    for cls, options in ((OGDA, {}), (SimultaneousDescentAscent, {}), (CGD, alone)):
        game, seen = QuadraticGame(), []
        optimizer: Any = cls(game.min_params, game.max_params, lr=0.01)
        param, penalty = game.min_params[0], lambda game=game: game.min_params[0].square().sum()
        whole = torch.autograd.grad(game.loss(), param)[0]
        handle = param.register_hook(lambda grad, seen=seen: seen.append(grad))
        optimizer.step(game.loss(), **options)
        assert len(seen) == 1
        assert torch.equal(seen[0], whole)
        before = snapshot(optimizer)
        with pytest.raises(ValueError, match="one by one"):
            optimizer.step(game.loss(), min_penalty=penalty(), **options)
        assert_same_bits(snapshot(optimizer), before)
        whole = torch.autograd.grad(game.loss() + penalty(), param)[0]
        seen.clear()
        optimizer.step((game.loss() + penalty(), -game.loss()), **options)
        assert len(seen) == 1
        assert torch.equal(seen[0], whole)
        handle.remove()
        param.register_post_accumulate_grad_hook(lambda param: None)
        fresh: Any = cls(game.min_params, game.max_params, lr=0.01)
        with pytest.raises(ValueError, match="would never be called"):
            fresh.step(game.loss(), **options)
