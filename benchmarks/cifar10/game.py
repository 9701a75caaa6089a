"""One evaluation of the game: what each player lowers, on one draw."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.cifar10.batches import Draw
from benchmarks.cifar10.losses import Loss
from benchmarks.cifar10.terms import Term
from compopt import Game


def value_of(game: Game) -> Tensor:
    """Return what the critic raises, detached and without terms."""
    return game.loss.detach() if game.max_loss is None else -game.max_loss.detach()


@dataclass(frozen=True)
class GanGame:
    """Generator, critic, loss and explicit term."""

    generator: nn.Module
    critic: nn.Module
    loss: Loss
    term: Term

    def value(self, draw: Draw) -> Tensor:
        """Return what the critic raises, without terms."""
        return self.loss.value(self.critic(draw.real), self.critic(self.generator(draw.noise)))

    def both(self, draw: Draw, curvature_loss: Tensor | None = None) -> Game:
        """Return the game of players who move at once."""
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
        """Return the game as the critic sees it in its turn, and the value without terms."""
        with torch.no_grad():
            fake = self.generator(draw.noise)
        value = self.loss.value(self.critic(draw.real), self.critic(fake))
        penalty = self.term.critic_penalty(self.critic, draw.real, fake, draw)
        # Of a player who moves alone, loss and term are differentiated in one backward pass.
        return Game(value if penalty is None else value - penalty), value.detach()

    def for_generator(self, draw: Draw) -> Game:
        """Return the game as the generator sees it, on noise that the critic has not seen."""
        fake_scores = self.critic(self.generator(draw.second_noise))
        value = objective = self.loss.generator_objective(fake_scores)
        # Only some terms need the critic on real images too.
        if self.term.needs_value:
            value = self.loss.value(self.critic(draw.real), fake_scores)
        penalty = self.term.generator_penalty(value, self.generator, self.critic, draw)
        return Game(objective if penalty is None else objective + penalty)
