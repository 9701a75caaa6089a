"""Tiny games with known answers, on which optimizers are tried."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compopt import Game

PLAYERS = ("min", "max")


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


class QuadraticGame:
    """``x P x / 2 + x M y - y Q y / 2 + a x + b y`` with each player in two tensors.

    The parameters may be exchanged for others of 5 and 3 entries in all; ``dtype`` is that of the
    arithmetic.
    """

    def __init__(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        self.dtype = dtype
        self.min_params = [random(2).requires_grad_(), random(1, 3).requires_grad_()]
        self.max_params = [random(2).requires_grad_(), random().requires_grad_()]
        self.p, self.q, self.mixed = random(5, 5), random(3, 3), 2 * random(5, 3)
        self.p, self.q = self.p @ self.p.T / 5, self.q @ self.q.T / 3
        self.a, self.b = random(5), random(3)

    def params(self, player: str) -> list[Tensor]:
        return self.min_params if player == "min" else self.max_params

    def vector(self, player: str) -> Tensor:
        return flat(self.params(player)).to(self.dtype)

    def loss(self, wrap: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Tensor:
        """Return the loss; ``wrap`` is applied to each player's flat vector first."""
        x, y = wrap(self.vector("min")), wrap(self.vector("max"))
        bilinear = x @ self.mixed @ y
        return x @ self.p @ x / 2 + bilinear - y @ self.q @ y / 2 + self.a @ x + self.b @ y

    def own_grads(self) -> dict[str, Tensor]:
        """Return the gradient of each player's own objective, by the formula."""
        x, y = self.vector("min").detach(), self.vector("max").detach()
        return {
            "min": self.p @ x + self.mixed @ y + self.a,
            "max": self.q @ y - self.mixed.T @ x - self.b,
        }


class GeneralGame:
    """A quadratic loss for each player in both players' vectors."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        random = partial(torch.randn, generator=generator, dtype=torch.float64)
        self.x, self.y = random(4).requires_grad_(), random(3).requires_grad_()
        self.hessians = [(h + h.T) / 2 for h in (random(7, 7), random(7, 7))]
        self.linear = [random(7), random(7)]

    def w(self) -> Tensor:
        return torch.cat([self.x, self.y])

    def losses(self) -> tuple[Tensor, Tensor]:
        w = self.w()
        return tuple(w @ h @ w / 2 + b @ w for h, b in zip(self.hessians, self.linear, strict=True))

    def as_game(self) -> Game:
        loss, max_loss = self.losses()
        return Game(loss, max_loss=max_loss)

    def jacobian(self) -> Tensor:
        return torch.cat([self.hessians[0][:4], self.hessians[1][4:]])

    def xi(self, w: Tensor) -> Tensor:
        return self.jacobian() @ w + torch.cat([self.linear[0][:4], self.linear[1][4:]])


class Token:
    """Something that lives as long as a graph that holds it."""


class _Hold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, token: Token | None) -> Tensor:
        ctx.token = token
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class NetworkGame:
    """A small GAN whose batches and weights are fixed by the seed."""

    def __init__(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
            self.critic = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).to(dtype)
            self.noise = torch.randn(8, 16, 2).to(dtype)
            self.real = (torch.randn(8, 16, 2) + 1).to(dtype)

    @property
    def min_params(self) -> list[Tensor]:
        return list(self.generator.parameters())

    @property
    def max_params(self) -> list[Tensor]:
        return list(self.critic.parameters())

    def loss(self, batch: int = 0, token: "Token | None" = None) -> Tensor:
        """Return the loss; the graphs of both players' gradients keep ``token`` alive."""
        noise, real = self.noise[batch % 8], self.real[batch % 8]
        scores = self.critic(real), self.critic(_Hold.apply(self.generator(noise), token))
        softplus = nn.functional.softplus
        return -softplus(-scores[0]).mean() - softplus(scores[1]).mean()
