"""Objectives of both players, from the critic's scores of real and fake images."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid, relu, softplus


@dataclass(frozen=True)
class Loss:
    """A loss of the game.

    Attributes:
        value: returns the value that the critic *maximises*, from scores of real and fake images.
        generator: returns the value that the generator minimises, from scores of fake images; None
            if the game is zero-sum, where it minimises ``value``.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor] | None = None

    @property
    def is_zero_sum(self) -> bool:
        """True if both players have the same value."""
        return self.generator is None

    def critic_objective(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the value that the critic minimises."""
        return -self.value(real, fake)

    def generator_objective(self, fake: Tensor) -> Tensor:
        """Return the value that the generator minimises, from fake images only."""
        # No term of `value` mixes real and fake scores, so the terms of real scores can be left out
        # without changing the derivative.
        return self.value(fake[:0], fake) if self.generator is None else self.generator(fake)


def _mean(values: Tensor) -> Tensor:
    """Return the mean; 0 for an empty tensor."""
    return values.mean() if values.numel() else values.sum()


LOSSES = {
    # Arjovsky et al. (2017), without clipping.
    "wgan": Loss(lambda real, fake: _mean(real) - _mean(fake)),
    # Goodfellow et al. (2014): the cross entropy, as the game stated in the paper.
    "bce": Loss(lambda real, fake: _mean(logsigmoid(real)) + _mean(logsigmoid(-fake))),
    # The same, with the generator's objective that the paper uses for training.
    "non-saturating": Loss(
        lambda real, fake: _mean(logsigmoid(real)) + _mean(logsigmoid(-fake)),
        lambda fake: softplus(-fake).mean(),
    ),
    # Lim and Ye (2017), Miyato et al. (2018).
    "hinge": Loss(
        lambda real, fake: -_mean(relu(1 - real)) - _mean(relu(1 + fake)),
        lambda fake: -fake.mean(),
    ),
}
