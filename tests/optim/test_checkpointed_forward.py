"""Re-entrant checkpoints of the forward pass: what they spoil is said, and the remedy works.

At the entry of a network they compute without a graph, so that nothing reaches their parameters.
"""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from compopt import ACGD, CGD, GMRES, PreflightError, StepWarning, preflight

pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")

CUT = r"2 of 4 parameters of the min player have no gradient.*use_reentrant=False"


class Pair:
    """A generator whose first layer is checkpointed, and a critic."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
        self.critic = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        self.z, self.real = (torch.randn(8, n, dtype=torch.float64) for n in (3, 2))

    def loss(self, use_reentrant: bool | None) -> Tensor:
        entry, rest = self.generator[0], self.generator[1:]
        if use_reentrant is None:
            hidden = entry(self.z)
        else:
            hidden = checkpoint(entry, self.z, use_reentrant=use_reentrant)
        return self.critic(self.real).mean() - self.critic(rest(hidden)).mean()

    def params(self) -> list[Tensor]:
        return [*self.generator.parameters(), *self.critic.parameters()]


def one(optimizer: Any, loss: Callable[[], Tensor]) -> None:
    optimizer.step(loss())


def two_losses(optimizer: Any, loss: Callable[[], Tensor]) -> None:
    value = loss()
    optimizer.step((value, -2 * value))


def two_phases(optimizer: Any, loss: Callable[[], Tensor]) -> None:
    optimizer.backward(loss())
    optimizer.step()


@pytest.mark.parametrize("form", [one, two_losses, two_phases])
@pytest.mark.parametrize("cls", [CGD, ACGD])
def test_a_step_tells_of_parameters_without_a_gradient(cls: Any, form: Any) -> None:
    def optimizer_of(pair: Pair) -> Any:
        return cls(pair.generator.parameters(), pair.critic.parameters(), solver=GMRES())

    cut, mended, plain = Pair(), Pair(), Pair()
    with pytest.warns(StepWarning, match=CUT):
        form(optimizer_of(cut), lambda: cut.loss(True))
    form(optimizer_of(mended), lambda: mended.loss(False))
    form(optimizer_of(plain), lambda: plain.loss(None))
    for param, expected in zip(mended.params(), plain.params(), strict=True):
        torch.testing.assert_close(param, expected)


def test_it_is_said_once_and_not_of_frozen_parameters() -> None:
    pair = Pair()
    optimizer = CGD(pair.generator.parameters(), pair.critic.parameters())
    with pytest.warns(StepWarning, match=CUT):
        optimizer.step(pair.loss(True))
    optimizer.step(pair.loss(True))
    frozen = Pair()
    frozen.generator[0].requires_grad_(False)
    optimizer = CGD(frozen.generator.parameters(), frozen.critic.parameters())
    optimizer.step(frozen.loss(True))


def test_a_penalty_may_give_the_gradient() -> None:
    pair = Pair()
    optimizer = CGD(pair.generator.parameters(), pair.critic.parameters())
    penalty = pair.generator[0].weight.square().sum()
    optimizer.step(pair.loss(True), min_penalty=penalty)


@pytest.mark.parametrize("measure", [True, False])
def test_preflight_names_the_remedy(measure: bool) -> None:
    pair = Pair()
    players = pair.generator, pair.critic
    words = r"min_player\.0\.weight, min_player\.0\.bias.*`torch\.utils\.checkpoint\.checkpoint"
    with pytest.raises(PreflightError, match=words + r"\(\.\.\., use_reentrant=False\)`"):
        preflight(lambda: pair.loss(True), *players, measure=measure)
    assert preflight(lambda: pair.loss(False), *players, measure=measure).interacts


def test_preflight_names_checkpoints_where_another_path_has_a_graph() -> None:
    """The critic's first layer gets a gradient from the generator's samples alone."""
    pair = Pair()

    def loss(use_reentrant: bool) -> Tensor:
        hidden = checkpoint(pair.critic[0], pair.real, use_reentrant=use_reentrant)
        real = pair.critic[1:](hidden).mean()
        return real - pair.critic(pair.generator(pair.z)).mean()

    with pytest.raises(PreflightError, match=r"is wrong.*checkpoints with `use_reentrant=True`"):
        preflight(lambda: loss(True), pair.generator, pair.critic)
    assert preflight(lambda: loss(False), pair.generator, pair.critic).interacts


def test_preflight_passes_on_what_else_is_warned_of() -> None:
    pair = Pair()

    def loss() -> Tensor:
        if not warned:
            warned.append(True)
            warnings.warn("mind the gap", UserWarning, stacklevel=1)
        return pair.loss(None)

    warned: list[bool] = []
    with pytest.warns(UserWarning, match="mind the gap"):
        preflight(loss, pair.generator, pair.critic)
