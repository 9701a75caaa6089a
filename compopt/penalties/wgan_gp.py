"""WGAN-GP: unit gradients on the segments between real and fake samples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compopt.penalties._random import uniform
from compopt.penalties._samples import Critic, check_pair
from compopt.penalties.base import PairPenalty, configured_first
from compopt.penalties.gradient import NormPenalty


def interpolate(
    real: Tensor,
    fake: Tensor,
    *,
    share: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return a random point on the segment between each real sample and its fake one.

    ``share * real + (1 - share) * fake`` with one share per sample, from U(0, 1), for any rank.

    Args:
        real: [n, ...].
        fake: shape of ``real``; keeps its graph.
        share: [n], used instead of random shares.
        generator: generator of the random numbers.

    Returns:
        Points with the shape and dtype of ``real``.
    """
    real, fake = check_pair(real, fake)
    drawn = uniform((len(real),), real, generator) if share is None else share
    if drawn.shape != (len(real),):
        raise ValueError(f"`share` must have shape ({len(real)},), got {tuple(drawn.shape)}.")
    drawn = drawn.reshape(-1, *(1,) * (real.dim() - 1))
    return (drawn * real + (1 - drawn) * fake).to(real.dtype)


@configured_first
@dataclass(frozen=True)
class WganGP(PairPenalty, NormPenalty):
    """``coefficient * mean (|grad D(x)| - target)^2`` at x between real and fake samples.

    Shares are uniform, one per sample, as in the paper and its code; the public code of competitive
    gradient descent draws normal shares, which leave the segment. Paper: coefficient 10, target 1,
    two-sided, five critic steps. A target of 0 gives the zero-centred form, ``one_sided`` the
    weaker constraint of the paper's appendix.

    For: the critic. Sign: subtracted from a zero-sum loss, or ``max_penalty``. Couples: no with
    ``detach`` (the usual game, in which the generator does not see the term); yes without. Order:
    2, so 3 for an attached term in a competitive loss. Cost: :func:`gradient_penalty`.

    Attributes:
        coefficient: factor >= 0.
        target: norm without penalty, >= 0.
        one_sided: whether norms below the target are not penalised.
        eps: added under the root.
        detach: whether fakes are constants.

    References:
        Gulrajani et al. (2017), eq. (3). https://arxiv.org/abs/1704.00028
    """

    detach: bool = True

    def _term(
        self, critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        return self._at(critic, interpolate(real, fake, generator=generator))
