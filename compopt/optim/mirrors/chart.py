"""What a mirror map does at a point."""

from abc import ABC, abstractmethod
from typing import TypeAlias

from torch import Tensor

Mirror: TypeAlias = str | tuple[str, float, float]
"""Names a mirror map: plain data, so that checkpoints load with ``weights_only``."""


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
        """Return the point w+ with ``grad psi(w+) = grad psi(w) + P S local``, feasible strictly.

        Strictly as floating-point numbers: a boundary is approached up to the last digit. A move of
        zero leaves every bit in place.
        """

    @abstractmethod
    def magnitude(self, gradient: Tensor) -> Tensor:
        """Return what adaptive step sizes average the square of.

        Entries with a constraint of their own have that of their gradient by w. Those that share
        one share a rate, from the norm of their gradient in local coordinates.

        Args:
            gradient: in local coordinates.
        """
