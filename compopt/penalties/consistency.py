"""Consistency: penalise a critic whose scores change under augmentation of its input."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from compopt._checks import check_count, check_non_negative
from compopt._typing import Player
from compopt.penalties._precision import network_input, widened, without_autocast
from compopt.penalties._random import uniform
from compopt.penalties._samples import (
    Critic,
    check_samples,
    check_scores,
    check_trainable,
    describe,
)
from compopt.penalties.base import PairPenalty, Penalty, configured_first

Augment: TypeAlias = Callable[[Tensor, torch.Generator | None], Tensor]
"""Maps samples [n, ...] and a source of random numbers to augmented samples [n, ...]."""


@dataclass(frozen=True)
class FlipAndShift:
    """Flips half of the images left to right and shifts each by up to ``max_shift`` pixels.

    Borders are filled by reflection. Differentiable. For images of letters or digits, use
    ``flip=False``.

    Attributes:
        max_shift: in pixels, >= 0; shifts along both axes are integers, uniformly distributed.
        flip: whether to flip.

    References:
        Zhang, Zhang, Odena and Lee (2020). https://arxiv.org/abs/1910.12027
    """

    max_shift: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        check_count("max_shift", self.max_shift, minimum=0)

    def __call__(self, samples: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return augmented copies of images [n, c, h, w]."""
        if samples.dim() != 4:
            raise ValueError(
                "`samples` must be images [n, c, h, w] for `FlipAndShift`, got shape "
                f"{tuple(samples.shape)}. Give the penalty an `augment` of your own."
            )
        n, channels, height, width = samples.shape
        shift = self.max_shift
        if shift >= min(height, width):
            raise ValueError(
                f"`max_shift` must be below the image's {height} x {width}, got {shift}."
            )
        if self.flip:
            is_flipped = uniform((n, 1, 1, 1), samples, generator) < 0.5
            samples = torch.where(is_flipped, samples.flip(3), samples)
        offsets = (uniform((2, n, 1), samples, generator) * (2 * shift + 1)).long()
        padded = functional.pad(samples, (shift,) * 4, mode="reflect") if shift else samples
        rows = offsets[0] + torch.arange(height, device=samples.device)
        columns = offsets[1] + torch.arange(width, device=samples.device)
        padded = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, padded.shape[3]))
        return padded.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def consistency_penalty(critic: Critic, samples: Tensor, augmented: Tensor) -> Tensor:
    """Return the mean over samples of ``|D(x) - D(T(x))|^2``, summed over a sample's scores.

    Both scores are differentiated. Autocast is disabled.

    Args:
        critic: maps samples [n, ...] to scores [n, ...].
        samples: [n, ...].
        augmented: shaped as ``samples``.

    Cost: two forward passes of the critic.
    """
    check_samples("samples", samples)
    inputs = [network_input(part) for part in (samples, augmented)]
    with without_autocast(samples):
        one, other = (check_scores(critic, critic(part), len(samples)) for part in inputs)
        difference = (widened(one) - widened(other)).reshape(len(samples), -1)
        return difference.square().sum(dim=1).mean()


@configured_first
@dataclass(frozen=True)
class Consistency(Penalty):
    """``coefficient * mean |D(x) - D(T(x))|^2`` on real samples (CR-GAN). Paper: coefficient 10.

    For: the critic. Sign: subtracted from a zero-sum loss, or ``max_penalty``. Couples: no. Order:
    1. Cost: two forward passes of the critic. One could be shared with the loss; this does not.

    Attributes:
        coefficient: factor >= 0.
        augment: maps samples and a random number generator to augmented samples.

    References:
        Zhang, Zhang, Odena and Lee (2020). https://arxiv.org/abs/1910.12027
    """

    player: ClassVar[Player | None] = "max"
    order: ClassVar[int] = 1

    coefficient: float = 10.0
    augment: Augment = FlipAndShift()

    def __post_init__(self) -> None:
        _check(self.augment, coefficient=self.coefficient)

    def __call__(
        self, critic: Critic, real: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the term for samples ``real`` [n, ...]."""
        return self.coefficient * _consistency(
            critic, check_samples("real", real).detach(), self.augment, generator
        )


@configured_first
@dataclass(frozen=True)
class BalancedConsistency(PairPenalty):
    """Consistency on real and on fake samples, each with its own coefficient (bCR).

    ``coefficient * mean |D(x) - D(T(x))|^2 + fake_coefficient * mean |D(G(z)) - D(T(G(z)))|^2``.
    Paper: 10 and 10.

    For: the critic. Sign: subtracted from a zero-sum loss, or ``max_penalty``. Couples: no with
    ``detach``, as in the paper; yes without. Order: 1, so 2 in a competitive loss. Cost: four
    forward passes of the critic.

    Attributes:
        coefficient: factor >= 0 of the real part.
        fake_coefficient: factor >= 0 of the fake part.
        augment: maps samples and a random number generator to augmented samples.
        detach: whether fakes are constants.

    References:
        Zhao et al. (2021), algorithm 1. https://arxiv.org/abs/2002.04724
    """

    player: ClassVar[Player | None] = "max"
    order: ClassVar[int] = 1

    coefficient: float = 10.0
    fake_coefficient: float = 10.0
    augment: Augment = FlipAndShift()
    detach: bool = True

    def __post_init__(self) -> None:
        _check(self.augment, coefficient=self.coefficient, fake_coefficient=self.fake_coefficient)

    def _term(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        on_real = _consistency(critic, real, self.augment, generator)
        on_fake = _consistency(critic, fake, self.augment, generator)
        return self.coefficient * on_real + self.fake_coefficient * on_fake


def _check(augment: object, **coefficients: float) -> None:
    for name, value in coefficients.items():
        check_non_negative(name, value)
    if not callable(augment):
        raise TypeError(f"`augment` must be callable, got {type(augment).__name__}.")


def _consistency(
    critic: Critic, samples: Tensor, augment: Augment, generator: torch.Generator | None
) -> Tensor:
    augmented = augment(samples, generator)
    if augmented.shape != samples.shape:
        raise ValueError(
            f"`augment` must keep the shape {tuple(samples.shape)}, got {tuple(augmented.shape)}."
        )
    penalty = consistency_penalty(critic, samples, augmented)
    return check_trainable(describe(critic), penalty) if torch.is_grad_enabled() else penalty
