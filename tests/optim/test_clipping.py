"""A group's gradient is clipped as one vector, whatever its parameters' step counts."""

import math
from typing import Any

import pytest
import torch
from optimizer_registry import OPTIMIZERS, OptimizerInfo, each_kind
from torch import Tensor, nn

from compopt import PolymatrixCGD


def scalar() -> nn.Parameter:
    return nn.Parameter(torch.zeros(1, dtype=torch.float64))


def move(info: OptimizerInfo, frozen_first: bool) -> Tensor:
    """Return how [a, b] with the gradients 3 and 4 move where b may be frozen for two steps."""
    a, b, y = scalar(), scalar(), scalar()
    optimizer: Any = info.cls([a, b], [y], lr=1e-2, max_grad_norm=1.0)

    def loss() -> Tensor:
        return 3 * a.sum() + 4 * b.sum() + y.sum()

    b.requires_grad_(not frozen_first)
    for _ in range(2):
        optimizer.step(loss if info.needs_closure else loss())
    b.requires_grad_(True)
    before = torch.cat([a.detach().clone(), b.detach().clone()])
    optimizer.step(loss if info.needs_closure else loss())
    return torch.cat([a.detach(), b.detach()]) - before


@each_kind
def test_group_is_clipped_as_one_vector_after_unfreezing(info: OptimizerInfo) -> None:
    gradients: list[Tensor] = []
    a, b, y = scalar(), scalar(), scalar()
    optimizer: Any = info.cls([a, b], [y], lr=1e-2, max_grad_norm=1.0)
    clip = optimizer._clip_groups

    def watch(player: Any, grad: Tensor) -> None:
        clip(player, grad)
        if player == "min":
            gradients.append(grad.clone())

    optimizer._clip_groups = watch
    b.requires_grad_(False)

    def loss() -> Tensor:
        return 3 * a.sum() + 4 * b.sum() + y.sum()

    optimizer.step(loss if info.needs_closure else loss())
    b.requires_grad_(True)
    optimizer.step(loss if info.needs_closure else loss())
    torch.testing.assert_close(
        gradients[-1], torch.tensor([0.6, 0.8], dtype=torch.float64), rtol=1e-5, atol=0
    )


@each_kind
def test_each_group_of_both_players_is_clipped_by_itself(info: OptimizerInfo) -> None:
    """Gradients (3, 4), 0.5, 5 and 12 of four groups a player, each to its own norm or none."""
    seen: dict[Any, Tensor] = {}
    players = [[scalar() for _ in range(5)] for _ in range(2)]
    limits = (1.0, 0.7, 0.8, None)
    groups = [
        [
            {"params": part, "max_grad_norm": limit}
            for part, limit in zip((own[:2], own[2:3], own[3:4], own[4:]), limits, strict=True)
        ]
        for own in players
    ]
    optimizer: Any = info.cls(*groups, lr=1e-2)
    clip = optimizer._clip_groups

    def watch(player: Any, grad: Tensor) -> None:
        clip(player, grad)
        seen[player] = grad.clone()

    optimizer._clip_groups = watch

    def loss() -> Tensor:
        own, other = (
            3 * a.sum() + 4 * b.sum() + 0.5 * c.sum() + 5 * d.sum() + 12 * e.sum()
            for a, b, c, d, e in players
        )
        return own - other

    optimizer.step(loss if info.needs_closure else loss())
    expected = torch.tensor([0.6, 0.8, 0.5, 0.8, 12.0], dtype=torch.float64)
    for player in ("min", "max"):
        torch.testing.assert_close(seen[player], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "info",
    [info for info in OPTIMIZERS if info.name in ("CGD", "LCGD")],
    ids=lambda i: i.name,
)
def test_steps_after_unfreezing_are_those_without_freezing(info: OptimizerInfo) -> None:
    expected = torch.tensor([-0.6e-2, -0.8e-2], dtype=torch.float64)
    for frozen_first in (False, True):
        torch.testing.assert_close(move(info, frozen_first), expected, rtol=1e-5, atol=0)


def test_nine_layers_unfrozen_one_by_one() -> None:
    layers, y = [scalar() for _ in range(9)], scalar()
    optimizer = PolymatrixCGD([layers, [y]], lr=1.0, max_grad_norm=1.0)
    for layer in layers[1:]:
        layer.requires_grad_(False)
    for layer in layers:
        layer.requires_grad_(True)
        before = [one.item() for one in layers]
        total = torch.stack([one.sum() for one in layers]).sum()
        optimizer.step([total, y.sum() ** 2])
    moved = [one.item() - old for one, old in zip(layers, before, strict=True)]
    assert math.isclose(math.hypot(*moved), 1.0, rel_tol=1e-5)
