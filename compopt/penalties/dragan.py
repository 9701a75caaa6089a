"""DRAGAN: unit gradients in a neighbourhood of the data."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from compopt._checks import check_choice, check_positive
from compopt.penalties._precision import widened
from compopt.penalties._random import normal, uniform
from compopt.penalties._samples import Critic, check_samples
from compopt.penalties.base import configured_first
from compopt.penalties.gradient import NormPenalty

Perturbation: TypeAlias = Literal["released", "paper"]

SCALES: dict[Perturbation, float] = {"released": 0.5, "paper": 10.0}
"""The scale of each perturbation in its source."""


def perturb(
    real: Tensor,
    *,
    perturbation: Perturbation = "released",
    scale: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return points near ``real`` by the rule of DRAGAN's released code or of its paper.

    - ``"released"``: ``x + alpha * scale * std * u`` with ``u`` from U[0, 1) for each entry,
      ``alpha`` from U(0, 1) for each sample, and ``std`` the standard deviation of all entries of
      the batch (population form). The noise is one-sided and follows the scale of the data.
    - ``"paper"``: ``x + delta`` with ``delta`` from N(0, scale I): ``scale`` is a variance and does
      not follow the data.

    Args:
        real: [n, ...]. Not modified.
        perturbation: "released" or "paper".
        scale: scale of the noise; None is 0.5 for the released code, 10 for the paper.
        generator: generator of the random numbers.

    Returns:
        Points with the shape and dtype of ``real``.
    """
    check_samples("real", real)
    check_choice("perturbation", perturbation, SCALES)
    width = SCALES[perturbation] if scale is None else scale
    wide = widened(real)
    if perturbation == "paper":
        noise = math.sqrt(width) * normal(wide.shape, wide, generator)
    else:
        shares = uniform((len(wide), *(1,) * (wide.dim() - 1)), wide, generator)
        std = wide.std(correction=0)
        noise = shares * width * std * uniform(wide.shape, wide, generator)
    return (wide + noise).to(real.dtype)


@configured_first
@dataclass(frozen=True)
class Dragan(NormPenalty):
    """``coefficient * mean (|grad D(x)| - target)^2`` at x near real samples.

    ``D`` returns logits, not probabilities. Paper and released code: coefficient 10, target 1; they
    differ in the noise, see :func:`perturb`. The authors advise tuning coefficient and region but
    not the target. The default is the released noise: a variance of 10 hides images scaled to
    [-1, 1].

    For: the critic. Sign: subtracted from a zero-sum loss, or ``max_penalty``. Couples: no; it uses
    real samples only. Order: 2. Cost: :func:`gradient_penalty`.

    Attributes:
        coefficient: factor >= 0.
        target: norm without penalty, >= 0.
        one_sided: whether norms below the target are not penalised.
        eps: added under the root.
        perturbation: "released" or "paper".
        scale: scale of the perturbation, > 0; None for that of its source.

    References:
        Kodali, Abernethy, Hays and Kira (2017). https://arxiv.org/abs/1705.07215
    """

    perturbation: Perturbation = "released"
    scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("perturbation", self.perturbation, SCALES)
        if self.scale is not None:
            check_positive("scale", self.scale)

    def __call__(
        self, critic: Critic, real: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the term for samples ``real`` [n, ...]."""
        points = perturb(
            check_samples("real", real).detach(),
            perturbation=self.perturbation,
            scale=self.scale,
            generator=generator,
        )
        return self._at(critic, points)
