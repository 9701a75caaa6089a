"""Train a GAN in one of the ways that ``mode_collapse.py`` compares."""

from typing import Any

import torch
from gaussian_mixture_gan import BATCH, NOISE, WIDTH, real_points
from mode_rows import PROJECTIONS, TERMS, Row
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from two_players import mlp

from compopt import ACGD


class Training:
    """Networks and steps of a row.

    Attributes:
        passes: number of backward passes so far.
    """

    def __init__(self, row: Row) -> None:
        self.row, self.passes = row, 0
        self.generator, self.critic = mlp(NOISE, WIDTH, WIDTH, 2), mlp(2, WIDTH, WIDTH, 1)
        if row.is_normalized:
            for layer in self.critic:
                if isinstance(layer, nn.Linear):
                    spectral_norm(layer)
        self.players = [list(self.generator.parameters()), list(self.critic.parameters())]
        self.acgd = ACGD(self.players[0], self.players[1], lr=2e-3)
        self.adams = [torch.optim.Adam(p, lr=1e-3, betas=(0.5, 0.99)) for p in self.players]
        projection = PROJECTIONS.get(row.projection)
        self.project = projection(self.critic) if projection else lambda: None

    def step(self) -> None:
        """Take the row's critic steps, the last together with the generator's step."""
        if self.row.is_competitive:
            self.acgd.step(self._loss()[0])
            self.passes += 1 + self.acgd.last_step.num_hvp
            return
        for _ in range(self.row.critic_steps - 1):
            self._move([1])
        self._move([0, 1])

    def _move(self, players: list[int]) -> None:
        """Move players with one evaluation of the loss."""
        loss, given = self._loss()
        is_zero_sum = isinstance(loss, Tensor)
        objectives = [loss, -loss] if is_zero_sum else list(loss)
        # AdvAs takes the losses without other terms.
        given |= {"loss": objectives[1], "generator_loss": objectives[0]}
        # One backward pass serves both players of a zero-sum game.
        self.passes += 1 if is_zero_sum else len(players)
        for term, extra in (TERMS[name] for name in self.row.terms):
            player = 0 if term.player == "min" else 1
            if player in players:
                objectives[player] = objectives[player] + term.on(**given)
                self.passes += extra
        grads = [
            torch.autograd.grad(objectives[player], self.players[player], retain_graph=True)
            for player in players
        ]
        for player, own in zip(players, grads, strict=True):
            for param, grad in zip(self.players[player], own, strict=True):
                param.grad = grad
            self.adams[player].step()
        self.project()

    def _loss(self) -> tuple[Any, dict[str, Any]]:
        real, fake = real_points("ring", BATCH), self.generator(torch.randn(BATCH, NOISE))
        given = {"critic": self.critic, "module": self.critic, "real": real, "fake": fake}
        given["min_params"] = self.players[0]
        return self.row.loss(self.critic(real), self.critic(fake)), given
