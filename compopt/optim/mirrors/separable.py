"""Mirror maps of entries that are constrained one by one."""

import torch
from torch import Tensor

from compopt.optim.mirrors.chart import Chart

# Largest logarithm of the factor by which a step multiplies an entry.
MAX_EXPONENT = 50.0


class NonNegative(Chart):
    """Entries > 0 with the entropy ``sum w log w``: ``P = 1 / w`` and ``w+ = w exp(d / w)``."""

    def __init__(self, point: Tensor) -> None:
        self.point = point
        self.root = point.sqrt()

    def push(self, local: Tensor) -> Tensor:
        """Return the move ``S @ local``."""
        return self.root * local

    def pull(self, gradient: Tensor) -> Tensor:
        """Return ``S^T @ gradient``."""
        return self.root * gradient

    def moved(self, local: Tensor) -> Tensor:
        """Return the point to which ``local`` leads."""
        exponent = (local / self.root).clamp(max=MAX_EXPONENT)
        limits = torch.finfo(local.dtype)
        return (self.point * exponent.exp()).clamp(limits.tiny, limits.max)

    def magnitude(self, gradient: Tensor) -> Tensor:
        """Return the gradient with respect to the entries themselves."""
        return gradient / self.root


class Box(Chart):
    """Entries between ``low`` and ``high`` with the entropy of both distances.

    ``psi = (w - low) log (w - low) + (high - w) log (high - w)``, so ``P`` is the sum of the
    inverse distances and ``grad psi`` the logit of where w lies in the box.
    """

    def __init__(self, point: Tensor, low: float, high: float) -> None:
        self.point, self.low, self.high = point, low, high
        self.below, self.above = point - low, high - point
        self.root = (self.below * self.above / (high - low)).sqrt()

    def push(self, local: Tensor) -> Tensor:
        """Return the move ``S @ local``."""
        return self.root * local

    def pull(self, gradient: Tensor) -> Tensor:
        """Return ``S^T @ gradient``."""
        return self.root * gradient

    def moved(self, local: Tensor) -> Tensor:
        """Return the point to which ``local`` leads."""
        exponent = (local / self.root).clamp(-MAX_EXPONENT, MAX_EXPONENT)
        logit = self.below.log() - self.above.log() + exponent
        # Filled on the device: a copy from the host would wait for it.
        low, high = (local.new_full((), end) for end in (self.low, self.high))
        moved = self.low + (self.high - self.low) * torch.sigmoid(logit)
        inner = torch.clamp(moved, torch.nextafter(low, high), torch.nextafter(high, low))
        return torch.where(local == 0, self.point, inner)

    def magnitude(self, gradient: Tensor) -> Tensor:
        """Return the gradient with respect to the entries themselves."""
        return gradient / self.root
