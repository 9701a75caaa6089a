"""The interface of a mirror map at a point."""

from abc import ABC, abstractmethod
from typing import TypeAlias

from torch import Tensor

Mirror: TypeAlias = str | tuple[str, float, float]
"""The name of a mirror map: plain data, so that checkpoints load with ``weights_only``."""


class Chart(ABC):
    """Local coordinates in which the metric of a mirror map is the identity.

    A mirror map psi of a constraint set has at a point w the metric ``P = Hess psi(w)``. With a
    factor ``P^-1 = S S^T``, moves are ``d = S u`` and gradients in u are ``S^T g``.
    """

    @abstractmethod
    def push(self, local: Tensor) -> Tensor:
        """Return the move ``S @ local``, in the shape of the point."""

    @abstractmethod
    def pull(self, gradient: Tensor) -> Tensor:
        """Return the gradient ``S^T @ gradient`` in local coordinates."""

    @abstractmethod
    def moved(self, local: Tensor) -> Tensor:
        """Return the point w+ with ``grad psi(w+) = grad psi(w) + P S local``, strictly feasible.

        This holds in floating point: a boundary is approached up to the last digit. A move of zero
        preserves every bit.
        """

    @abstractmethod
    def magnitude(self, gradient: Tensor) -> Tensor:
        """Return the values whose squares adaptive step sizes average.

        For entries that are constrained one by one, these are their gradients by w. Entries that
        share a constraint have the norm of their gradient in local coordinates.

        Args:
            gradient: the gradient in local coordinates.
        """
