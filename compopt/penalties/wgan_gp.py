"""WGAN-GP: unit gradients on the segments between real and fake samples."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compopt._checks import check_non_negative, check_positive
from compopt._typing import Player
from compopt.penalties._random import uniform
from compopt.penalties._samples import Critic, check_pair
from compopt.penalties.base import Penalty, configured_first
from compopt.penalties.gradient import EPS, gradient_penalty


def interpolate(
    real: Tensor,
    fake: Tensor,
    *,
    share: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return a random point on the segment between each real sample and its fake one.

    ``share * real + (1 - share) * fake`` with one share a sample, from U(0, 1), for any rank.

    Args:
        real: [n, ...].
        fake: shaped as ``real``; keeps its graph.
        share: [n] instead of drawn ones.
        generator: of the random numbers.

    Returns:
        Points, shaped and typed as ``real``.
    """
    real, fake = check_pair(real, fake)
    drawn = uniform((len(real),), real, generator) if share is None else share
    if drawn.shape != (len(real),):
        raise ValueError(f"`share` must have shape ({len(real)},), got {tuple(drawn.shape)}.")
    drawn = drawn.reshape(-1, *(1,) * (real.dim() - 1))
    return (drawn * real + (1 - drawn) * fake).to(real.dtype)


@configured_first
@dataclass(frozen=True)
class WganGP(Penalty):
    """``coefficient * mean (|grad D(x)| - target)^2`` at x between real and fake samples.

    Shares are uniform, one a sample, as in the paper and its code; the public code of competitive
    gradient descent draws normal ones, which leave the segment. Paper: coefficient 10, target 1,
    two-sided, five critic steps. A target of 0 is the zero-centred form, ``one_sided`` the weaker
    constraint of the paper's appendix.

    For: the critic. Sign: subtracted from a zero-sum loss, or ``max_penalty``. Couples: no with
    ``detach`` (the usual game, in which the generator does not see the term); yes without. Order:
    2, so 3 where an attached term stands in a competitive loss. Cost: :func:`gradient_penalty`.

    Attributes:
        coefficient: factor >= 0.
        target: norm that costs nothing >= 0.
        one_sided: whether norms below the target cost nothing.
        detach: whether fakes are constants.
        eps: under the root.

    References:
        Gulrajani et al. (2017), eq. (3). https://arxiv.org/abs/1704.00028
    """

    player: ClassVar[Player | None] = "max"
    order: ClassVar[int] = 2

    coefficient: float = 10.0
    target: float = 1.0
    one_sided: bool = False
    detach: bool = True
    eps: float = EPS

    def __post_init__(self) -> None:
        check_non_negative("coefficient", self.coefficient)
        check_non_negative("target", self.target)
        check_positive("eps", self.eps)

    @property
    def couples(self) -> bool:
        """Whether fakes keep their graph."""
        return not self.detach

    def __call__(
        self,
        critic: Critic,
        real: Tensor,
        fake: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the term for samples ``real`` and ``fake`` [n, ...]."""
        real, fake = check_pair(real, fake)
        points = interpolate(
            real.detach(), fake.detach() if self.detach else fake, generator=generator
        )
        return self.coefficient * gradient_penalty(
            critic, points, target=self.target, one_sided=self.one_sided, eps=self.eps
        )
