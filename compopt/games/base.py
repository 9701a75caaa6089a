"""What a test game consists of."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TestGame:
    """A zero-sum game of one tensor a player, with what is known about it.

    Attributes:
        name: what it is called.
        loss: ``f(x, y)``, scalar; the min player has x and lowers it, the max player has y.
        start: (x, y) to begin from, float64.
        solution: (x, y) of a Nash equilibrium, None if there is none or it is not known.
        spectrum: [n] complex eigenvalues of the Jacobian of the players' own gradients at the
            solution, sorted by real and imaginary part; None if it is not known.
        source: where the game is from.
    """

    # Not a class of tests, whatever its name.
    __test__ = False

    name: str
    loss: Loss = field(repr=False)
    start: tuple[Tensor, Tensor] = field(repr=False)
    solution: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    spectrum: Tensor | None = field(default=None, repr=False)
    source: str = field(default="", repr=False)

    def players(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Return new leaves (x, y) at the start."""
        x, y = (tensor.to(dtype, copy=True).requires_grad_() for tensor in self.start)
        return x, y

    def distance(self, x: Tensor, y: Tensor) -> float:
        """Return the Euclidean distance of (x, y) from the solution. Reads a value.

        Raises:
            ValueError: if no solution is known.
        """
        if self.solution is None:
            raise ValueError(f"No solution of the game {self.name!r} is known.")
        parts = [
            torch.linalg.vector_norm(player.detach().to(exact) - exact)
            for player, exact in zip((x, y), self.solution, strict=True)
        ]
        return float(torch.stack(parts).norm())


def sorted_spectrum(eigenvalues: Tensor) -> Tensor:
    """Return complex eigenvalues in order of their real, then of their imaginary parts."""
    pairs = sorted(
        (complex(value) for value in eigenvalues), key=lambda v: (round(v.real, 9), v.imag)
    )
    return torch.tensor(pairs, dtype=torch.complex128)
