"""One evaluation of the game: what each player lowers, on one draw."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.cifar10.batches import Draw
from benchmarks.cifar10.losses import Loss
from benchmarks.cifar10.terms import Term


@dataclass(frozen=True)
class Objectives:
    """What both players lower, from one forward pass.

    Attributes:
        value: what the critic raises; in a zero-sum game, what the generator lowers.
        generator: what the generator lowers instead, or None in a zero-sum game.
        min_penalty: what the generator also lowers, or None.
        max_penalty: what the critic also lowers, or None.
    """

    value: Tensor
    generator: Tensor | None
    min_penalty: Tensor | None
    max_penalty: Tensor | None


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

    def both(self, draw: Draw) -> Objectives:
        """Return what both players lower at once."""
        fake = self.generator(draw.noise)
        real_scores, fake_scores = self.critic(draw.real), self.critic(fake)
        value = self.loss.value(real_scores, fake_scores)
        return Objectives(
            value=value,
            generator=None if self.loss.generator is None else self.loss.generator(fake_scores),
            min_penalty=self.term.generator_penalty(value, self.generator, self.critic, draw),
            max_penalty=self.term.critic_penalty(self.critic, draw.real, fake, draw),
        )

    def for_critic(self, draw: Draw) -> tuple[Tensor, Tensor]:
        """Return what the critic lowers in its turn, and the game's value."""
        with torch.no_grad():
            fake = self.generator(draw.noise)
        value = self.loss.value(self.critic(draw.real), self.critic(fake))
        penalty = self.term.critic_penalty(self.critic, draw.real, fake, draw)
        return (-value if penalty is None else penalty - value), value.detach()

    def for_generator(self, draw: Draw) -> Tensor:
        """Return what the generator lowers in its turn, on noise that the critic has not seen."""
        fake_scores = self.critic(self.generator(draw.second_noise))
        objective = self.loss.generator_objective(fake_scores)
        # Only some terms need the critic on real images too.
        if self.term.needs_value:
            value = self.loss.value(self.critic(draw.real), fake_scores)
        else:
            value = objective
        penalty = self.term.generator_penalty(value, self.generator, self.critic, draw)
        return objective if penalty is None else objective + penalty
