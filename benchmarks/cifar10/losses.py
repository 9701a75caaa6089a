"""What each player lowers, from the critic's scores of real and of fake images."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid, relu, softplus


@dataclass(frozen=True)
class Loss:
    """A loss of the game.

    Attributes:
        value: from scores of real and fake images, what the critic *raises*.
        generator: from scores of fake images, what the generator lowers; None if the game is
            zero-sum, where it lowers ``value``.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor] | None = None

    @property
    def is_zero_sum(self) -> bool:
        """Whether one number serves both players."""
        return self.generator is None

    def critic_objective(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the critic lowers."""
        return -self.value(real, fake)

    def generator_objective(self, fake: Tensor) -> Tensor:
        """Return what the generator lowers, from its own images alone."""
        # No term of `value` mixes real and fake scores: with real ones left out, what is left has
        # the same derivative.
        return self.value(fake[:0], fake) if self.generator is None else self.generator(fake)


def _mean(values: Tensor) -> Tensor:
    """Return the mean, of nothing 0."""
    return values.mean() if values.numel() else values.sum()


LOSSES = {
    # Arjovsky et al. (2017), without clipping.
    "wgan": Loss(lambda real, fake: _mean(real) - _mean(fake)),
    # Goodfellow et al. (2014): the cross entropy, as the game that the paper states.
    "bce": Loss(lambda real, fake: _mean(logsigmoid(real)) + _mean(logsigmoid(-fake))),
    # The same with the generator's objective that paper trains with.
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
