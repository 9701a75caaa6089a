"""Points of the sets that mirror maps are for, and what tests know of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

BOX = ("box", -1.0, 2.0)


def psd(seed: int, size: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return root @ root.T + torch.eye(size, dtype=torch.float64)


def leaf(values: Tensor | list[Any], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.as_tensor(values, dtype=dtype).clone().requires_grad_()


# A point of each set.
POINTS: dict[Any, Tensor] = {
    "euclidean": torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64),
    "nonnegative": torch.tensor([0.5, 2.0, 1e-3], dtype=torch.float64),
    "simplex": torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64),
    BOX: torch.tensor([0.5, -0.9, 1.99], dtype=torch.float64),
    "positive-definite": psd(0),
}

# The mirror maps themselves, of which tests take derivatives.
POTENTIALS: dict[Any, Callable[[Tensor], Tensor]] = {
    "euclidean": lambda w: w.square().sum() / 2,
    "nonnegative": lambda w: (w * w.log()).sum(),
    "simplex": lambda w: (w * w.log()).sum(),
    BOX: lambda w: ((w + 1) * (w + 1).log() + (2 - w) * (2 - w).log()).sum(),
    "positive-definite": lambda w: -torch.logdet(w),
}

each_set = pytest.mark.parametrize(
    "mirror", [m for m in POINTS if m != "euclidean"], ids=lambda m: m if m != BOX else "box"
)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert error < tolerance, f"relative error {error:.2e}: {actual} is not {expected}"


def assert_inside(mirror: Any, *points: Tensor) -> None:
    """Raise unless the points lie strictly inside the set, by tests of their own."""
    for point in points:
        assert torch.isfinite(point).all()
        if mirror == "nonnegative":
            assert (point > 0).all()
        elif mirror == "simplex":
            assert (point > 0).all()
            assert (point.sum(-1) - 1).abs().max() < 1e-6
        elif mirror == "positive-definite":
            assert torch.equal(point, point.mT)
            assert not torch.linalg.cholesky_ex(point).info.any()
        elif mirror != "euclidean":
            assert ((point > mirror[1]) & (point < mirror[2])).all()


def tangent(mirror: Any, shape: torch.Size, seed: int) -> Tensor:
    """Return a random move that keeps to the linear constraints of the set."""
    generator = torch.Generator().manual_seed(seed)
    move = 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    if mirror == "simplex":
        move = move - move.mean(-1, keepdim=True)
    return (move + move.mT) / 2 if mirror == "positive-definite" else move


def game_of(mirror: Any, seed: int = 0) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    """Return a player in the set of ``mirror``, a Euclidean one, and a loss that couples them."""
    x, y = leaf(POINTS[mirror]), leaf([0.3, -0.4])
    generator = torch.Generator().manual_seed(seed)
    coupling = torch.randn(x.numel(), 2, generator=generator, dtype=torch.float64)
    weights = torch.randn(x.shape, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        return x.reshape(-1) @ coupling @ y + (weights * x.square()).sum() - y.square().sum()

    return x, y, loss
