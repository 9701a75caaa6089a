"""Wherever a step is interrupted, it is taken whole or not at all, and not taken before its writes.

Every torch operation and every line of the package that a step runs raises in turn.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from every_optimizer import EVERY as ALL
from every_optimizer import KINDS as ALL_KINDS
from every_optimizer import Entry
from games import QuadraticGame
from interruptions import Interrupted, Lines, Operations
from snapshots import all_params, assert_same_bits, bits, snapshot

from compopt import ACGD, CGD, GMRES, ConjugateGradient
from compopt.optim import commit as commit_module

# A wrapper's hook comes after the step.
EVERY, KINDS = (
    [entry for entry in entries if "Lookahead" not in entry.name] for entries in (ALL, ALL_KINDS)
)
SOLVER = ConjugateGradient(rtol=0.0, max_iter=2)


PLACES: dict[str, type[Operations | Lines]] = {"operation": Operations, "line": Lines}


class Steps:
    """An optimizer in the middle of its work, with the ways to take its next step."""

    def __init__(self, entry: Entry, num_steps: int) -> None:
        self.game, self.optimizer = entry.start()
        self.take = partial(entry.step, self.optimizer, self.game.loss)
        for _ in range(num_steps):
            self.take()

    def everything(self) -> dict[str, torch.Tensor]:
        """Return copies of parameters, state and gradients."""
        grads = {
            f"gradient {index}": param.grad.clone()
            for index, param in enumerate(all_params(self.optimizer))
            if param.grad is not None
        }
        return snapshot(self.optimizer) | grads


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(bits(one[name]), bits(other[name])) for name in one
    )


def _competitive(cls: Any, **options: Any) -> Callable[..., Any]:
    return lambda *players, lr: cls(*players, lr=lr, solver=SOLVER, **options)


class PairOfLosses(Entry):
    """A step on a loss for each player."""

    def step(self, optimizer: Any, loss: Callable[[], Any]) -> Any:
        value = loss()
        return optimizer.step((value, 0.5 * value.square() - value))


class TwoPhases(Entry):
    """A step that is prepared first."""

    def step(self, optimizer: Any, loss: Callable[[], Any]) -> Any:
        optimizer.backward(loss())
        result = optimizer.step()
        optimizer.zero_grad()
        return result


FORMS = (
    Entry("ACGD-warm", _competitive(ACGD, warm_start=True, weight_decay=0.1), ACGD),
    Entry("ACGD-capturable", _competitive(ACGD, capturable=True, solve_for="min"), ACGD),
    Entry("ACGD-warm", _competitive(ACGD, warm_start=True, mirror=("box", -20.0, 15.0)), ACGD),
    TwoPhases("CGD-two-phase", _competitive(CGD, max_grad_norm=0.3), CGD),
    PairOfLosses("CGD-pair", partial(CGD, solver=GMRES(rtol=1e-2)), CGD),
)


def interrupt(entry: Entry, num_steps: int, place: str, stride: int) -> tuple[int, int]:
    """Interrupt the step after ``num_steps`` in every ``stride``-th place, at its end in each.

    Returns:
        How often the step was not taken, and how often it was taken.
    """
    done = Steps(entry, num_steps)
    with PLACES[place]() as counter:
        done.take()
    after = done.everything()
    steps = Steps(entry, num_steps)
    before = steps.everything()
    outcomes = [0, 0]
    end = range(max(1, counter.count - 30), counter.count + 1)
    for at in sorted({*range(1, counter.count, stride), *end}):
        try:
            with PLACES[place](at):
                steps.take()
        except Interrupted:
            # The interpreter may have been on its way out of a `with`, or in it.
            torch.set_grad_enabled(True)
            steps.optimizer.zero_grad()
        now = steps.everything()
        is_taken = same(now, after)
        if not is_taken:
            assert_same_bits(now, before)
        outcomes[is_taken] += 1
        if is_taken:
            steps = Steps(entry, num_steps)
    steps.take()
    # After as many interruptions as there were, the step is still the right one.
    assert_same_bits(steps.everything(), after)
    return outcomes[0], outcomes[1]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("entry", "num_steps"),
    [*((entry, 2) for entry in [*KINDS, *FORMS]), *((entry, 0) for entry in FORMS)],
    ids=lambda value: value.name if isinstance(value, Entry) else f"step-{value}",
)
def test_an_interrupted_step_is_taken_whole_or_not_at_all(
    entry: Entry, place: str, num_steps: int
) -> None:
    before, _ = interrupt(entry, num_steps, place, stride=301 if place == "line" else 131)
    assert before > 3


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [0, 2], ids=["first-step", "later-step"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("entry", [*EVERY, *FORMS], ids=lambda entry: entry.name)
def test_every_place_of_every_step(entry: Entry, place: str, num_steps: int) -> None:
    before, _ = interrupt(entry, num_steps, place, 1)
    assert before > 20


def test_this_test_sees_mixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_completion(self: commit_module.Commit) -> None:
        self._run()

    monkeypatch.setattr(commit_module.Commit, "run", without_completion)
    entry = Entry("CGD", CGD, CGD, QuadraticGame)
    with pytest.raises(AssertionError):
        interrupt(entry, 2, "operation", 1000)
