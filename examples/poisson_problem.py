"""A Poisson equation with a known solution, and the losses of networks that solve it.

``laplace u = -2 sin x cos y`` in the square [-2, 2]^2 with u given on its edge: u = sin x cos y.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


class Solution(nn.Module):
    """A tanh network u(x, y) that also computes its Laplacian."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        sizes = [2, *[width] * depth, 1]
        linears = [nn.Linear(*pair) for pair in pairwise(sizes)]
        self.hidden, self.last = nn.ModuleList(linears[:-1]), linears[-1]
        for linear in linears:
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, points: Tensor) -> Tensor:
        """Return u [n] at points [n, 2]."""
        for layer in self.hidden:
            points = layer(points).tanh()
        values: Tensor = self.last(points)
        return values.squeeze(1)

    def laplacian(self, points: Tensor) -> Tensor:
        """Return the Laplacian [n] of u, computed in the forward pass.

        Computed by reverse passes, it would make every mixed product differentiate four times.
        """
        value, lap = points, torch.zeros_like(points)
        slopes = torch.eye(2, dtype=points.dtype).unsqueeze(1).expand(2, len(points), 2)
        for layer in self.hidden:
            weight = layer.get_parameter("weight").T
            value, slopes, lap = layer(value).tanh(), slopes @ weight, lap @ weight
            first = 1 - value.square()
            lap = first * (lap - 2 * value * slopes.square().sum(0))
            slopes = first * slopes
        return (lap @ self.last.weight.T).squeeze(1)


def critic(width: int, depth: int) -> nn.Sequential:
    """Return a network that bets on the residuals: one weight inside, one on the edge."""
    layers: list[nn.Module] = []
    for first, last in pairwise([2, *[width] * depth]):
        layers += [nn.Linear(first, last), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 2))


def exact(points: Tensor) -> Tensor:
    """Return the solution [n] at points [n, 2]."""
    return points[:, 0].sin() * points[:, 1].cos()


class Residuals:
    """Residuals of the equation inside and of the values on the edge."""

    def __init__(self, num_inside: int, num_edge: int) -> None:
        self.inside = 4 * torch.rand(num_inside, 2) - 2
        self.edge = 4 * torch.rand(num_edge, 2) - 2
        side = torch.arange(num_edge) % 4
        rows = torch.arange(num_edge)
        self.edge[rows, side // 2] = 4.0 * (side % 2) - 2
        self.force = -2 * exact(self.inside)
        self.values = exact(self.edge)

    def of(self, solution: Solution) -> tuple[Tensor, Tensor]:
        """Return the residuals inside and on the edge."""
        return solution.laplacian(self.inside) - self.force, solution(self.edge) - self.values

    def squared(self, solution: Solution) -> Tensor:
        """Return the loss of a plain physics-informed network."""
        inside, edge = self.of(solution)
        return inside.square().mean() + edge.square().mean()

    def bet(self, solution: Solution, critic: nn.Module) -> Tensor:
        """Return the critic's gain, and the solution's loss, from bets on the residuals."""
        inside, edge = self.of(solution)
        bets: tuple[Tensor, Tensor] = critic(self.inside)[:, 0], critic(self.edge)[:, 1]
        return (bets[0] * inside).mean() + (bets[1] * edge).mean()


def relative_error(solution: Solution, points: Tensor) -> float:
    """Return ``|u - exact| / |exact|`` over points."""
    with torch.no_grad():
        truth = exact(points)
        return float((solution(points) - truth).norm() / truth.norm())


def grid(size: int = 60) -> Tensor:
    """Return the points [size^2, 2] of a grid on the square."""
    ticks = torch.linspace(-2, 2, size)
    return torch.cartesian_prod(ticks, ticks)
