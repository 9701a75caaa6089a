"""Layers of given singular values."""

import torch
from torch import Tensor, nn


def with_values(values: Tensor, n: int, d: int, seed: int = 0) -> Tensor:
    """Return a matrix [n, d] with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    left, right = (
        torch.linalg.qr(torch.randn(size, len(values), generator=generator, dtype=torch.float64)).Q
        for size in (n, d)
    )
    return left @ torch.diag(values) @ right.T


VALUES = torch.tensor([4.0, 3.0, 2.0, 1.5, 1.0, 0.2], dtype=torch.float64)


def conv_with(values: Tensor = VALUES, *, transposed: bool = False) -> nn.Module:
    """Return a convolution whose matrix [6, 8] has these singular values."""
    matrix = with_values(values, 6, 8)
    if transposed:
        layer = nn.ConvTranspose2d(2, 6, 2, bias=False).double()
        weight = matrix.view(6, 2, 2, 2).movedim(0, 1)
    else:
        layer = nn.Conv2d(2, 6, 2, bias=False).double()
        weight = matrix.view(6, 2, 2, 2)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def matrix_of(layer: nn.Module) -> Tensor:
    """Return a copy of the layer's weight as a matrix."""
    weight = layer.weight.detach().clone()
    return (weight.movedim(1, 0) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(24, 5)
    ).double()
