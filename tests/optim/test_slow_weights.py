"""Slow weights count the steps that were taken, and no others."""

import copy
from typing import Any

import pytest
import torch
from every_optimizer import EVERY, KINDS, Entry
from optimizer_info import INF, NAN
from snapshots import all_params, assert_same_bits, snapshot

from compopt import ACGD, ConjugateGradient
from compopt.kernels.lists.tables import Place
from compopt.optim.rivals import LookaheadMinmax

FIXED = ConjugateGradient(rtol=0.0, max_iter=2)


def _capturable(*players: Any, lr: Any) -> ACGD:
    return ACGD(*players, lr=lr, capturable=True, solver=FIXED, on_failure="skip")


ENTRIES = [
    *(entry for entry in EVERY if "Lookahead" not in entry.name),
    Entry("ACGD-capturable", _capturable, ACGD),
]


def counts(optimizer: torch.optim.Optimizer) -> list[int]:
    return [group.get("lookahead_step", 0) for group in optimizer.param_groups]


@pytest.mark.filterwarnings("ignore::compopt.StepWarning")
@pytest.mark.parametrize(
    ("entry", "factor"),
    [
        pytest.param(entry, factor, id=f"{entry.name}-{factor}")
        for entry in ENTRIES
        for factor in ((NAN, INF) if entry.name == "ACGD" else (NAN,))
    ],
)
def test_a_step_that_was_not_taken_does_not_count(entry: Entry, factor: float) -> None:
    (game, optimizer), (twin_game, twin) = entry.start(), entry.start()
    for each in (optimizer, twin):
        LookaheadMinmax(each, interval=2)
    for fails in (True, False, True, True, False, False, False):
        if fails:
            before = [param.clone() for param in all_params(optimizer)]
            entry.step(optimizer, lambda: game.loss() * factor)
            assert all(map(torch.equal, all_params(optimizer), before))
        else:
            entry.step(optimizer, game.loss)
            entry.step(twin, twin_game.loss)
    assert counts(optimizer) == [4, 4]
    assert_same_bits(snapshot(optimizer), snapshot(twin))


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e in KINDS or e.name == "ACGD-capturable"], ids=lambda e: e.name
)
def test_a_step_without_a_loss_does_not_count(entry: Entry) -> None:
    game, optimizer = entry.start()
    LookaheadMinmax(optimizer, interval=1)
    optimizer.step()
    assert counts(optimizer) == [0, 0]
    entry.step(optimizer, game.loss)
    assert counts(optimizer) == [1, 1]


def test_a_step_that_raises_does_not_count() -> None:
    game, optimizer = ENTRIES[0].start()
    LookaheadMinmax(optimizer, interval=1)
    with pytest.raises(TypeError):
        optimizer.step("loss")
    assert counts(optimizer) == [0, 0]
    optimizer.step(game.loss(), player="max")
    assert counts(optimizer) == [1, 1]


def test_a_capture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    game, optimizer = ENTRIES[-1].start()
    LookaheadMinmax(optimizer)
    before = [param.clone() for param in all_params(optimizer)]
    monkeypatch.setattr(Place, "of", lambda vector: Place(vector.device, 7, True))
    with pytest.raises(RuntimeError, match="Capture an optimizer without it"):
        optimizer.step(game.loss())
    assert all(map(torch.equal, all_params(optimizer), before))


def test_a_parameter_that_has_not_moved_has_no_state() -> None:
    """Else checkpoints lack a part of it, and torch's Adam takes it for one that has moved."""
    (game, optimizer), (twin_game, twin) = ENTRIES[0].start(), ENTRIES[0].start()
    for each in (optimizer, twin):
        LookaheadMinmax(each, interval=2)
    optimizer.step(game.loss(), player="max")
    with torch.no_grad():
        for param, value in zip(all_params(twin), all_params(optimizer), strict=True):
            param.copy_(value)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        optimizer.step(game.loss())
        twin.step(twin_game.loss())
    assert_same_bits(snapshot(optimizer), snapshot(twin))
    # Once more, and from a checkpoint in another precision.
    state = copy.deepcopy(optimizer.state_dict())
    for entry in state["state"].values():
        entry["slow"] = entry["slow"].float()
    optimizer.load_state_dict(state)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        optimizer.step(game.loss())
    x, y = (torch.ones(1, requires_grad=True) for _ in range(2))
    adam = torch.optim.Adam([x, y], lr=0.1)
    LookaheadMinmax(adam, interval=2)
    for params in ([x], [x, y]):
        torch.cat(params).square().sum().backward()
        adam.step()
    # One step of Adam has the length of its rate, of which half is kept.
    assert y.item() == pytest.approx(0.95)
