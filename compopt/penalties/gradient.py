"""Penalties that keep the norm of a critic's gradient at given points near a target."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from compopt._checks import check_non_negative, check_positive
from compopt._typing import Player
from compopt.penalties._precision import network_input, widened, without_autocast
from compopt.penalties._samples import (
    Critic,
    check_samples,
    check_scores,
    check_trainable,
    describe,
)
from compopt.penalties.base import Penalty, configured_first

EPS = 1e-12
"""Stands under the root of a gradient norm, where it bounds both derivatives at zero."""


def critic_gradients(critic: Critic, points: Tensor) -> Tensor:
    """Return the gradient of each sample's score with respect to that sample.

    Autocast is disabled, so that gradients are at least float32 if the weights are. The gradients
    are of the sum of all scores: if samples interact in the critic (batch normalization), they mix.

    Args:
        critic: maps points [n, ...] to scores [n], [n, 1] or, for patches, [n, 1, h, w]. The
            scores of a sample are summed, as in all public implementations.
        points: [n, ...] of any rank from 2. If they have a graph (attached fakes), so does the
            result with respect to their inputs; otherwise they are constants.

    Returns:
        Gradients with the shape of ``points``, with a graph if gradients are enabled.

    Raises:
        TypeError, ValueError: if the points are not samples, the scores do not have one entry or
            more for each sample, or do not depend on the points.

    Cost: a forward and a backward pass of the critic.
    """
    check_samples("points", points)
    create_graph = torch.is_grad_enabled()
    samples = network_input(points)
    with torch.enable_grad(), without_autocast(points):
        if not samples.requires_grad:
            samples = samples.detach()
            try:
                samples.requires_grad_()
            except RuntimeError:
                # Inside a torch.func transform, only torch.func can start to differentiate.
                result: Tensor = torch.func.grad(partial(_total_score, critic))(samples)
                return result
        scores = check_scores(critic, critic(samples), len(samples))
        gradients = None
        if scores.requires_grad:
            (gradients,) = torch.autograd.grad(
                widened(scores).sum(), samples, create_graph=create_graph, allow_unused=True
            )
    if gradients is None:
        raise ValueError(
            f"The scores of {describe(critic)} must depend on its input with a graph; they do not. "
            "Do not detach inside the critic."
        )
    return gradients


def _total_score(critic: Critic, samples: Tensor) -> Tensor:
    return widened(check_scores(critic, critic(samples), len(samples))).sum()


def gradient_penalty(
    critic: Critic,
    points: Tensor,
    *,
    target: float = 1.0,
    one_sided: bool = False,
    eps: float = EPS,
) -> Tensor:
    """Return the mean squared distance of the critic's gradient norms from ``target``.

    With g_i the gradient of sample i over all its axes::

        mean_i (sqrt(|g_i|^2 + eps) - target)^2,

    with ``max(. - target, 0)`` if one-sided. For a target of zero it is ``mean_i |g_i|^2``, without
    a root. Norms are over all axes but the first. Sums and roots are computed in at least float32.

    Args:
        critic: as in :func:`critic_gradients`.
        points: [n, ...] at which the gradient is taken.
        target: norm without penalty.
        one_sided: whether norms below the target are not penalised.
        eps: added under the root: value and derivatives stay finite at a zero gradient, and a norm
            changes by at most ``sqrt(eps)``.

    Returns:
        The mean, a scalar without coefficient.

    Raises:
        TypeError, ValueError: as :func:`critic_gradients`, and if the critic is frozen.

    Cost: a forward pass and a backward pass with its graph: about a plain critic step for the
    value, and twice that with its gradient.
    """
    gradients = critic_gradients(critic, points)
    squares = widened(gradients).flatten(1).square().sum(dim=1)
    if target == 0:
        penalty = squares.mean()
    else:
        excess = (squares + eps).sqrt() - target
        penalty = (excess.clamp(min=0) if one_sided else excess).square().mean()
    if torch.is_grad_enabled():
        check_trainable(describe(critic), penalty)
    return penalty


@dataclass(frozen=True)
class NormPenalty(Penalty):
    """Base of penalties on the norm of the critic's gradient; see :class:`GradientPenalty`."""

    player: ClassVar[Player | None] = "max"
    order: ClassVar[int] = 2

    coefficient: float = 10.0
    target: float = 1.0
    one_sided: bool = False
    eps: float = EPS

    def __post_init__(self) -> None:
        check_non_negative("coefficient", self.coefficient)
        check_non_negative("target", self.target)
        check_positive("eps", self.eps)

    def _at(self, critic: Critic, points: Tensor) -> Tensor:
        """Return the term at ``points`` [n, ...]."""
        return self.coefficient * gradient_penalty(
            critic, points, target=self.target, one_sided=self.one_sided, eps=self.eps
        )


@configured_first
@dataclass(frozen=True)
class GradientPenalty(NormPenalty):
    """``coefficient * mean (|grad D(x)| - target)^2`` at points of the caller's.

    For: the critic. Sign: subtracted from a zero-sum loss, or ``max_penalty``. Couples: only if the
    points have a graph to the generator. Order: 2. Cost: :func:`gradient_penalty`.

    Attributes:
        coefficient: factor >= 0.
        target: norm without penalty, >= 0.
        one_sided: whether norms below the target are not penalised.
        eps: added under the root.
    """

    def __call__(self, critic: Critic, points: Tensor) -> Tensor:
        """Return the term at ``points`` [n, ...]."""
        return self._at(critic, points)
