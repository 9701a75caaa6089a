"""One evaluation of the game: each player's objective on one draw."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.cifar10.batches import Draw
from benchmarks.cifar10.losses import Loss
from benchmarks.cifar10.terms import Term
from compopt import Game


def value_of(game: Game) -> Tensor:
    """Return the value that the critic maximises, detached and without terms."""
    return game.loss.detach() if game.max_loss is None else -game.max_loss.detach()


@dataclass(frozen=True)
class GanGame:
    """Generator, critic, loss and explicit term."""

    generator: nn.Module
    critic: nn.Module
    loss: Loss
    term: Term

    def value(self, draw: Draw) -> Tensor:
        """Return the value that the critic maximises, without terms."""
        return self.loss.value(self.critic(draw.real), self.critic(self.generator(draw.noise)))

    def both(self, draw: Draw, curvature_loss: Tensor | None = None) -> Game:
        """Return the game for players that move simultaneously."""
        fake = self.generator(draw.noise)
        real_scores, fake_scores = self.critic(draw.real), self.critic(fake)
        value = self.loss.value(real_scores, fake_scores)
        penalties = (
            self.term.generator_penalty(value, self.generator, self.critic, draw),
            self.term.critic_penalty(self.critic, draw.real, fake, draw),
        )
        if self.loss.generator is None:
            return Game(value, *penalties, curvature_loss=curvature_loss)
        return Game(self.loss.generator(fake_scores), *penalties, max_loss=-value)

    def for_critic(self, draw: Draw) -> tuple[Game, Tensor]:
        """Return the game for a step of the critic, and the value without terms."""
        with torch.no_grad():
            fake = self.generator(draw.noise)
        value = self.loss.value(self.critic(draw.real), self.critic(fake))
        penalty = self.term.critic_penalty(self.critic, draw.real, fake, draw)
        # A player that moves alone differentiates loss and term in one backward pass.
        return Game(value if penalty is None else value - penalty), value.detach()

    def for_generator(self, draw: Draw) -> Game:
        """Return the game for a step of the generator, on noise that the critic did not use."""
        fake_scores = self.critic(self.generator(draw.second_noise))
        value = objective = self.loss.generator_objective(fake_scores)
        # Only some terms also need the critic's scores of real images.
        if self.term.needs_value:
            value = self.loss.value(self.critic(draw.real), fake_scores)
        penalty = self.term.generator_penalty(value, self.generator, self.critic, draw)
        return Game(objective if penalty is None else objective + penalty)
