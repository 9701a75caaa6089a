"""A loss, a part of which is older than the last step, is not taken without a word.

Autograd finds it where it has kept what has moved since, or freed what it kept. Linear networks
keep neither.
"""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compopt import ACGD, CGD, GMRES, StepWarning
from compopt.optim import PolymatrixCGD
from compopt.optim.rivals import LCGD, LEAD, SGA, ExtraGradient

OLD = "A part of the loss was computed before the last step"


class Linear:
    """A linear generator, whose samples may be used again."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.generator, self.critic = nn.Linear(2, 2), nn.Linear(2, 1)
        self.noise = torch.randn(8, 2)

    def params(self) -> list[list[nn.Parameter]]:
        return [list(net.parameters()) for net in (self.generator, self.critic)]

    def loss(self, fake: Tensor | None = None) -> Tensor:
        fake = self.generator(self.noise) if fake is None else fake
        return -self.critic(fake).square().mean()


MAKERS: dict[str, Any] = {
    **{cls.__name__: cls for cls in (CGD, ACGD, LCGD, LEAD, SGA)},
    "pair": lambda *params, **options: CGD(*params, solver=GMRES(), **options),
    "PolymatrixCGD": lambda *params, **options: PolymatrixCGD([*params], **options),
}


def take(name: str, optimizer: Any, loss: Tensor) -> None:
    if name == "pair":
        optimizer.step((loss, -loss))
    else:
        optimizer.step([loss, -loss] if name == "PolymatrixCGD" else loss)


@pytest.mark.parametrize("name", MAKERS)
def test_samples_that_are_older_than_the_step_are_told(name: str) -> None:
    play = Linear()
    optimizer = MAKERS[name](*play.params(), lr=0.1)
    old = play.generator(play.noise)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take(name, optimizer, play.loss(old))
    with pytest.warns(StepWarning, match=OLD) as caught:
        take(name, optimizer, play.loss(old))
    assert caught[0].filename == __file__
    # The remedy.
    right = MAKERS[name](*play.params(), lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            take(name, right, play.loss())


def test_a_closure_around_older_samples_is_told() -> None:
    play = Linear()
    optimizer = ExtraGradient(*play.params(), lr=0.1)
    old = play.generator(play.noise)
    # What the first backward pass freed autograd finds by itself.
    with pytest.raises(RuntimeError, match="compute every part of it again"):
        optimizer.step(lambda: play.loss(old))


def test_two_phases_tell_as_well() -> None:
    play = Linear()
    optimizer = CGD(*play.params(), lr=0.1)
    old = play.generator(play.noise)
    optimizer.backward(play.loss(old))
    optimizer.step()
    with pytest.warns(StepWarning, match=OLD):
        optimizer.backward(play.loss(old))


@pytest.mark.filterwarnings("error")
def test_what_has_not_moved_may_be_used_again() -> None:
    play = Linear()
    optimizer = CGD(*play.params(), lr=0.1)
    fake = play.generator(play.noise)
    for _ in range(3):
        optimizer.step(play.loss(fake), player="max")
    optimizer.step(play.loss(fake))
    other = nn.Linear(2, 2)
    shared, again = other(play.noise), CGD(*play.params(), lr=0.1)
    for _ in range(3):
        again.step(play.loss(play.generator(shared)))
    # A loss of NaN moves nobody.
    still = CGD(*play.params(), lr=0.1, on_failure="skip")
    fake = play.generator(play.noise)
    with pytest.warns(StepWarning, match="not taken"):
        still.step(play.loss(fake) * float("nan"))
    still.step(play.loss(fake))
