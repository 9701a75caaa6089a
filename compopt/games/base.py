"""Base class of test games."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TestGame:
    """A zero-sum game with one tensor per player, and its known properties.

    Attributes:
        name: name of the game.
        loss: ``f(x, y)``, scalar; the min player lowers it by x, the max player raises it by y.
        start: initial (x, y), float64.
        solution: (x, y) of a Nash equilibrium, None if there is none or none is known.
        spectrum: [n] complex eigenvalues of the Jacobian of the players' own gradients at the
            solution, sorted by real and imaginary part; None if unknown.
        source: reference for the game.
    """

    # Keep pytest from collecting this class because of its name.
    __test__ = False

    name: str
    loss: Loss = field(repr=False)
    start: tuple[Tensor, Tensor] = field(repr=False)
    solution: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    spectrum: Tensor | None = field(default=None, repr=False)
    source: str = field(default="", repr=False)

    def players(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """Return new leaf tensors (x, y) at the start."""
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
    """Return complex eigenvalues sorted by real part, then by imaginary part."""
    pairs = sorted(
        (complex(value) for value in eigenvalues), key=lambda v: (round(v.real, 9), v.imag)
    )
    return torch.tensor(pairs, dtype=torch.complex128)
