"""Dense truth: blocks of the Hessian by forward-over-reverse mode, and closed-form steps."""

from dataclasses import dataclass, field

import torch
from cases import Case
from torch import Tensor
from torch.func import grad, jacfwd


def flat(tensors: list[Tensor]) -> Tensor:
    """Return all entries in one vector."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _like(vector: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    pieces = vector.split([tensor.numel() for tensor in tensors])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]


@dataclass
class Blocks:
    """First derivatives and the mixed block of a loss at a point."""

    grad_x: Tensor  # [n]
    grad_y: Tensor  # [m]
    mixed: Tensor  # [n, m]


def blocks(case: Case) -> Blocks:
    """Differentiate ``case`` densely."""

    def function(x: Tensor, y: Tensor) -> Tensor:
        return case.loss(_like(x, case.min_params), _like(y, case.max_params))

    x, y = flat(case.min_params), flat(case.max_params)
    return Blocks(
        grad_x=grad(function, 0)(x, y),
        grad_y=grad(function, 1)(x, y),
        mixed=jacfwd(grad(function, 0), 1)(x, y),
    )


def cgd_deltas(at: Blocks, eta_x: Tensor, eta_y: Tensor) -> tuple[Tensor, Tensor]:
    """Return both players' moves, each from its own closed form (paper, Sect. 2).

    ``dx = -(1/eta_x + D eta_y D^T)^-1 (g_x + D eta_y g_y)`` and
    ``dy = +(1/eta_y + D^T eta_x D)^-1 (g_y - D^T eta_x g_x)``.
    """
    d = at.mixed
    lhs_x = torch.diag(1 / eta_x) + d @ torch.diag(eta_y) @ d.T
    lhs_y = torch.diag(1 / eta_y) + d.T @ torch.diag(eta_x) @ d
    return (
        -torch.linalg.solve(lhs_x, at.grad_x + d @ (eta_y * at.grad_y)),
        torch.linalg.solve(lhs_y, at.grad_y - d.T @ (eta_x * at.grad_x)),
    )


@dataclass
class AdaptiveStepSizes:
    """The step sizes of ACGD for one player, kept densely."""

    lr: float
    beta: float
    eps: float
    average: Tensor | float = 0.0
    count: int = field(default=0)

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return the step sizes after seeing ``gradient``."""
        self.count += 1
        self.average = self.beta * self.average + (1 - self.beta) * gradient**2
        correction = (1 - self.beta**self.count) ** 0.5
        return self.lr * correction / (self.average.sqrt() + self.eps)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the Euclidean relative error; the absolute one where ``expected`` is zero."""
    error = torch.linalg.vector_norm((actual - expected).double())
    norm = torch.linalg.vector_norm(expected.double())
    return float(error / norm) if norm > 0 else float(error)


def assert_close(actual: Tensor, expected: Tensor, rtol: float, what: str = "value") -> None:
    """Raise unless ``actual`` is within ``rtol`` of ``expected`` in the Euclidean norm."""
    assert torch.isfinite(actual).all(), f"{what} is not finite"
    error = relative_error(actual, expected)
    norm = float(torch.linalg.vector_norm(expected.double()))
    assert error <= rtol, f"{what}: relative error {error:.2e} > {rtol:.0e} (norm {norm:.2e})"
