"""Constrained players that start where nothing moves; see ``mistakes``."""

from collections.abc import Callable
from typing import Any

import torch
from mistakes import Act, Mistake, Play
from torch import Tensor

from compopt import CGD


def on_the_boundary(mirror: Any, value: Tensor) -> Act:
    return lambda play: CGD([value.clone().requires_grad_()], [play.y], mirror=(mirror, EUCLIDEAN))


EUCLIDEAN = "euclidean"


def started(mirror: Any, value: Tensor, start: Callable[[Tensor], Any]) -> Act:
    """Return a remedy for parameters on the boundary: start as the message says."""

    def remedy(play: Play) -> None:
        param = value.clone().requires_grad_()
        start(param)
        before = param.detach().clone()
        optimizer = CGD([param], [play.y], lr=0.1, mirror=(mirror, EUCLIDEAN))
        optimizer.step((param.square().sum() + param.flatten()[0]) * play.y.sum())
        assert not torch.equal(param, before)

    return remedy


LOW, HIGH = -1.0, 3.0
MIRRORS = (
    Mistake(
        "multipliers-at-zero",
        on_the_boundary("nonnegative", torch.zeros(2)),
        ValueError,
        r"`mirror` 'nonnegative' .*entries from 0 to 0.*`param\.data\.clamp_\(min=0\.01\)`",
        started("nonnegative", torch.zeros(2), lambda param: param.data.clamp_(min=0.01)),
    ),
    Mistake(
        "corner-of-a-simplex",
        on_the_boundary("simplex", torch.tensor([1.0, 0.0, 0.0])),
        ValueError,
        r"entries from 0 to 1\..*`param\.data\.fill_\(1 / param\.shape\[-1\]\)`",
        started(
            "simplex",
            torch.tensor([1.0, 0.0, 0.0]),
            lambda param: param.data.fill_(1 / param.shape[-1]),
        ),
    ),
    Mistake(
        "bound-of-a-box",
        on_the_boundary(("box", LOW, HIGH), torch.full((2,), LOW)),
        ValueError,
        r"entries from -1 to -1\..*`param\.data\.fill_\(\(low \+ high\) / 2\)`",
        started(
            ("box", LOW, HIGH),
            torch.full((2,), LOW),
            lambda param: param.data.fill_((LOW + HIGH) / 2),
        ),
    ),
    Mistake(
        "singular-matrix",
        on_the_boundary("positive-definite", torch.zeros(2, 2)),
        ValueError,
        r"`param\.data\.copy_\(torch\.eye\(param\.shape\[-1\]\)\)`",
        started(
            "positive-definite",
            torch.zeros(2, 2),
            lambda param: param.data.copy_(torch.eye(param.shape[-1])),
        ),
    ),
)
