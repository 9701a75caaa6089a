"""Mixtures of Gaussians in the plane, and the number of modes that samples cover."""

import math

import torch
from torch import Tensor

SIGMA = 0.05
MODES = torch.view_as_real(torch.polar(torch.ones(8), torch.arange(8) * torch.pi / 4))
ANGLES = 1.5 * math.pi * (1 + 2 * torch.linspace(0, 1, 50))
ROLL = torch.stack([ANGLES * ANGLES.cos(), ANGLES * ANGLES.sin()], 1) / (4.5 * math.pi)
"""Places on the swiss roll, which is to be covered as the ring's modes are."""
PLACES = {"ring": MODES, "swiss roll": ROLL}


def draw(data: str, count: int) -> Tensor:
    """Return real points [count, 2]."""
    places = PLACES[data]
    return places[torch.randint(len(places), (count,))] + SIGMA * torch.randn(count, 2)


def score(data: str, points: Tensor) -> dict[str, float]:
    """Return the number of places with a fifth of their share, and the share of good points."""
    places = PLACES[data]
    distances, nearest = torch.cdist(points, places).min(dim=1)
    good = distances < 4 * SIGMA
    counts = nearest[good].bincount(minlength=len(places))
    found = int((counts >= len(points) / len(places) / 5).sum())
    return {"found": found, "good": round(float(good.float().mean()), 3)}
