"""Mirror maps of entries that share a constraint."""

import torch
from torch import Tensor

from compopt.optim.mirrors.chart import Chart
from compopt.optim.mirrors.separable import MAX_EXPONENT


class Simplex(Chart):
    """Probabilities along the last dimension, with the entropy: ``w+ ~ w exp(d / w)``.

    Moves keep the sum: ``S = diag(sqrt w) (I - sqrt w sqrt w^T)``, and ``S S^T = diag w - w w^T``
    is the inverse metric on them.
    """

    def __init__(self, point: Tensor) -> None:
        self.point = point
        # Of unit length, even if the point has drifted off the simplex.
        self.root = (point / point.sum(-1, keepdim=True)).sqrt()

    def _project(self, local: Tensor) -> Tensor:
        along: Tensor = (self.root * local).sum(-1, keepdim=True)
        return local - self.root * along

    def push(self, local: Tensor) -> Tensor:
        """Return the move ``S @ local``."""
        return self.root * self._project(local)

    def pull(self, gradient: Tensor) -> Tensor:
        """Return ``S^T @ gradient``."""
        return self._project(self.root * gradient)

    def moved(self, local: Tensor) -> Tensor:
        """Return the point to which ``local`` leads."""
        logits = self.point.log() + (self._project(local) / self.root)
        # Values too small for the dtype are rounded to its smallest number, not to zero.
        moved = torch.softmax(logits, -1).clamp(min=torch.finfo(local.dtype).tiny)
        return torch.where((local == 0).all(-1, keepdim=True), self.point, moved)

    def magnitude(self, gradient: Tensor) -> Tensor:
        """Return, in each entry, the norm over the entries that share its constraint."""
        norm: Tensor = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        return norm.expand_as(gradient)


class PositiveDefinite(Chart):
    """Symmetric positive definite matrices [..., n, n] with ``psi = -log det``.

    The metric is ``P[D] = W^-1 D W^-1``. With ``W = L L^T``, moves are ``D = L U L^T`` for
    symmetric U, and ``grad psi = -W^-1`` leads to ``W+ = L (I - U)^-1 L^T``. That exists if all
    eigenvalues of U are below 1; otherwise the dual step leaves the domain of the mirror map;
    above 1/2 the inverse is continued by an exponential with the same value and slope.
    """

    def __init__(self, point: Tensor) -> None:
        self.point = point
        values, vectors = torch.linalg.eigh(_symmetric(point))
        self.factor = vectors * values.sqrt().unsqueeze(-2)

    def push(self, local: Tensor) -> Tensor:
        """Return the move ``S @ local``."""
        move: Tensor = self.factor @ _symmetric(local) @ self.factor.mT
        return move

    def pull(self, gradient: Tensor) -> Tensor:
        """Return ``S^T @ gradient``."""
        pulled: Tensor = self.factor.mT @ _symmetric(gradient) @ self.factor
        return pulled

    def moved(self, local: Tensor) -> Tensor:
        """Return the point to which ``local`` leads."""
        values, vectors = torch.linalg.eigh(_symmetric(local))
        excess = (2 * (values - 0.5)).clamp(0, MAX_EXPONENT)
        growth = excess.exp() / (1 - values.clamp(max=0.5))
        factor = self.factor @ vectors * growth.sqrt().unsqueeze(-2)
        stays = (local == 0).all(-1, keepdim=True).all(-2, keepdim=True)
        return torch.where(stays, self.point, _bounded_gram(factor))

    def magnitude(self, gradient: Tensor) -> Tensor:
        """Return, in each entry, the norm over the entries that share its constraint."""
        norm: Tensor = torch.linalg.matrix_norm(gradient)[..., None, None]
        return norm.expand_as(gradient)


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _bounded_gram(factor: Tensor) -> Tensor:
    """Return ``factor @ factor^T``, finite, with eigenvalues above their rounding error."""
    limits, size = torch.finfo(factor.dtype), factor.shape[-1]
    scale = factor.abs().amax((-2, -1), keepdim=True)
    scaled = factor / scale
    values, vectors = torch.linalg.eigh(scaled @ scaled.mT)
    floor = values[..., -1:] * (8 * size * limits.eps)
    values = torch.maximum(values, floor).unsqueeze(-2)
    # Entries of `gram` are at most the number of rows: bound the scale to keep products finite.
    gram = _symmetric((vectors * values) @ vectors.mT)
    return gram * scale.square().clamp(max=limits.max / (2 * size))
