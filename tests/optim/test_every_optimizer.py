"""The same tests of a torch optimizer for every one of the package, wrappers included."""

import copy
import pickle
from typing import Any

import pytest
import torch
from covering import one_each
from every_optimizer import EVERY, KINDS, Entry, each_kind
from schedulers import NUM_STEPS, SCHEDULERS, advance
from snapshots import all_params, assert_same_bits, snapshot
from step_faults import BAD_GRADIENTS
from torch import Tensor
from training_runs import through_file

import compopt
from compopt import StepWarning
from compopt.optim import rivals


def run(entry: Entry, game: Any, optimizer: Any, steps: int) -> None:
    for _ in range(steps):
        entry.step(optimizer, game.loss)


def hand_over(entry: Entry, game: Any, optimizer: Any) -> tuple[Any, Any]:
    """Return a new game and optimizer with the parameters and the state of others."""
    other, resumed = entry.start(lr=0.5)
    with torch.no_grad():
        for param, value in zip(all_params(resumed), all_params(optimizer), strict=True):
            param.copy_(value)
    resumed.load_state_dict(through_file(optimizer.state_dict()))
    return other, resumed


def test_every_optimizer_is_here() -> None:
    exported = {
        value
        for module in (compopt, rivals)
        for value in map(vars(module).get, module.__all__)
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    assert exported == {entry.cls for entry in EVERY}


@pytest.mark.parametrize(("entry", "name"), one_each(EVERY, list(SCHEDULERS)))
def test_schedules_take_effect(entry: Entry, name: str) -> None:
    """As when the rates that the schedule gives are set by hand, bit for bit."""
    game, optimizer = entry.start()
    twin_game, twin = entry.start()
    scheduler = SCHEDULERS[name](optimizer)
    seen = set()
    for _ in range(12):
        for group, other in zip(optimizer.param_groups, twin.param_groups, strict=True):
            other["lr"] = group["lr"]
        seen.add(tuple(group["lr"] for group in optimizer.param_groups))
        run(entry, game, optimizer, 1)
        run(entry, twin_game, twin, 1)
        advance(scheduler, 1.0)
    assert len(seen) > 1
    assert NUM_STEPS > 12
    for param, other in zip(all_params(optimizer), all_params(twin), strict=True):
        assert torch.equal(param, other)


# All through a file; copies are made by the base classes.
COPIED = [entry for entry in KINDS if entry.copies]
ROUND_TRIPS = [*one_each(EVERY, ["file"]), *one_each(COPIED, ["deepcopy", "pickle"])]


@pytest.mark.parametrize(("entry", "how"), ROUND_TRIPS)
def test_state_round_trip_is_bitwise(entry: Entry, how: str) -> None:
    straight, stopped = entry.start(), entry.start()
    run(entry, *straight, 7)
    run(entry, *stopped, 3)
    if how == "file":
        resumed = hand_over(entry, *stopped)
    elif how == "deepcopy":
        resumed = copy.deepcopy(stopped)
    else:
        resumed = pickle.loads(pickle.dumps(stopped))
    kept = snapshot(stopped[1])
    run(entry, *resumed, 4)
    assert_same_bits(snapshot(resumed[1]), snapshot(straight[1]))
    assert_same_bits(snapshot(stopped[1]), kept)


@each_kind
def test_hooks_are_called_around_a_step(entry: Entry) -> None:
    game, optimizer = entry.start()
    calls: list[Any] = []
    before = [param.detach().clone() for param in all_params(optimizer)]

    def moved() -> bool:
        pairs = zip(all_params(optimizer), before, strict=True)
        return any(not torch.equal(param, old) for param, old in pairs)

    handles = [
        optimizer.register_step_pre_hook(lambda *_: calls.append(("before", moved()))),
        optimizer.register_step_post_hook(lambda *_: calls.append(("after", moved()))),
    ]
    run(entry, game, optimizer, 1)
    assert calls == [("before", False), ("after", True)]
    for handle in handles:
        handle.remove()
    run(entry, game, optimizer, 1)
    assert len(calls) == 2
    optimizer.register_state_dict_post_hook(lambda *_: calls.append("saved"))
    optimizer.register_load_state_dict_pre_hook(lambda *_: calls.append("loading"))
    optimizer.register_load_state_dict_post_hook(lambda *_: calls.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert calls[2:] == ["saved", "loading", "loaded"]


# `step(None)` is the step without a loss; a closure must not return None.
SECOND_POINT = [entry for entry in EVERY if getattr(entry.cls, "needs_closure", False)]
NO_LOSS: dict[str, Any] = {"none": lambda game: None}
BAD_LOSSES: dict[str, Any] = {
    "text": lambda game: "loss",
    "vector": lambda game: game.vector("min"),
    "no-graph": lambda game: game.loss().detach(),
    "integer": lambda game: torch.tensor(3),
    "number": lambda game: game.loss().item(),
}


@pytest.mark.parametrize(
    ("entry", "bad"), [*one_each(KINDS, BAD_LOSSES), *one_each(SECOND_POINT, NO_LOSS)]
)
def test_a_loss_that_is_none_is_refused(entry: Entry, bad: Any) -> None:
    game, optimizer = entry.start()
    run(entry, game, optimizer, 2)
    before = snapshot(optimizer)
    with pytest.raises((TypeError, ValueError), match=r"`(loss|max_loss|losses\[0\])`"):
        entry.step(optimizer, lambda: bad(game))
    assert_same_bits(snapshot(optimizer), before)


BAD_RATES = [-0.1, float("nan"), "0.1", None, (0.1, -0.1)]


@pytest.mark.parametrize(("entry", "lr"), one_each(KINDS, BAD_RATES))
def test_bad_rates_are_refused(entry: Entry, lr: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="`lr`"):
        entry.start(lr)


BAD = [name for name in BAD_GRADIENTS if "penalty" not in name]


@pytest.mark.parametrize("after", [0, 3], ids=["first-step", "later-step"])
@pytest.mark.parametrize(("entry", "case"), one_each(KINDS, BAD))
def test_what_is_not_finite_moves_nothing(entry: Entry, case: str, after: int) -> None:
    game, optimizer = entry.start()
    run(entry, game, optimizer, after)
    before = snapshot(optimizer)

    def loss() -> Tensor:
        return BAD_GRADIENTS[case](game)[0]

    with pytest.warns(StepWarning, match="not taken"):
        entry.step(optimizer, loss)
    after_it = snapshot(optimizer)
    # Slow weights begin at the first step, whatever becomes of it.
    slow = [key for key in after_it if key.endswith(" slow")]
    for key in slow:
        after_it.pop(key)
        before.pop(key, None)
    if slow:
        after_it.pop("number of states"), before.pop("number of states")
    assert_same_bits(after_it, before)
    # Once is enough: a second warning would be an error here.
    entry.step(optimizer, loss)
    run(entry, game, optimizer, 2)
    assert all(bool(torch.isfinite(param).all()) for param in all_params(optimizer))
    assert any(
        not torch.equal(param, before[f"parameter {index}"])
        for index, param in enumerate(all_params(optimizer))
    )


@pytest.mark.parametrize("entry", SECOND_POINT, ids=lambda entry: entry.name)
def test_a_second_point_that_is_not_finite_moves_nothing(entry: Entry) -> None:
    game, optimizer = entry.start()
    run(entry, game, optimizer, 3)
    before, calls = snapshot(optimizer), []

    def loss() -> Tensor:
        calls.append(1)
        return game.loss() + (torch.nan if len(calls) == points else 0.0)

    points = 1 if entry.cls is rivals.PastExtraGradient else 2
    with pytest.warns(StepWarning, match="not taken"):
        entry.step(optimizer, loss)
    assert len(calls) == points
    assert_same_bits(snapshot(optimizer), before)


@each_kind
def test_a_state_of_before_a_hyperparameter_existed_is_loaded(entry: Entry) -> None:
    """Its groups lack what was added since: the optimizer keeps its own."""
    straight = entry.start()
    run(entry, *straight, 2)
    game, optimizer = entry.start()
    run(entry, game, optimizer, 2)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        for key in ("interaction", "max_grad_norm", "mirror"):
            group.pop(key, None)
    other, resumed = entry.start()
    with torch.no_grad():
        for param, value in zip(all_params(resumed), all_params(optimizer), strict=True):
            param.copy_(value)
    own = [{**group} for group in resumed.param_groups]
    resumed.load_state_dict(state)
    for group, kept in zip(resumed.param_groups, own, strict=True):
        assert group.keys() >= kept.keys()
        for key in {"interaction", "max_grad_norm", "mirror"} & kept.keys():
            assert group[key] == kept[key]
    run(entry, *straight, 2)
    run(entry, other, resumed, 2)
    assert_same_bits(snapshot(resumed), snapshot(straight[1]))
