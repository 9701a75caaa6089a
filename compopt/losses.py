"""GAN losses, computed from the critic's scores of real and generated samples.

Each function takes ``real``, the critic's scores of real samples, and ``fake``, its scores of
generated samples with the graph of both players: do not detach the samples. Scores may have any
shape, and losses are means over all scores. In losses with a sigmoid, scores are logits.

Pass the result to ``optimizer.step``. It is one zero-sum loss, or a pair of the generator's loss
and the critic's loss, in which each player lowers its own.

A step on a pair takes one more backward pass and has an unsymmetric linear system.
:func:`zero_sum` turns a pair into one loss.

Example:
    >>> import torch
    >>> from compopt import ACGD, losses
    >>> G, D = torch.nn.Linear(4, 2), torch.nn.Linear(2, 1)
    >>> optimizer = ACGD(G.parameters(), D.parameters())
    >>> real, fake = D(torch.randn(8, 2)), D(G(torch.randn(8, 4)))
    >>> value = optimizer.step(losses.minimax(real, fake))
"""

from typing import TypeAlias

from torch import Tensor
from torch.nn.functional import logsigmoid, relu, softplus

__all__ = [
    "hinge",
    "least_squares",
    "minimax",
    "non_saturating",
    "relativistic",
    "relativistic_average",
    "wasserstein",
    "zero_sum",
]

Pair: TypeAlias = tuple[Tensor, Tensor]


def wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """Return the zero-sum Wasserstein loss ``mean D(x) - mean D(G(z))``.

    The critic is not constrained; add a penalty with ``max_penalty=``.

    References:
        Arjovsky, Chintala and Bottou (2017), eq. (2). https://arxiv.org/abs/1701.07875
    """
    return real.mean() - fake.mean()


def minimax(real: Tensor, fake: Tensor) -> Tensor:
    """Return the zero-sum cross entropy ``mean log s(D(x)) + mean log(1 - s(D(G(z))))``.

    ``s`` is the sigmoid, scores are logits. Also called the saturating loss: the generator's
    gradient vanishes when the critic rejects the samples with certainty.

    References:
        Goodfellow et al. (2014), eq. (1). https://arxiv.org/abs/1406.2661
    """
    return logsigmoid(real).mean() + logsigmoid(-fake).mean()


def non_saturating(real: Tensor, fake: Tensor) -> Pair:
    """Return the pair ``-mean log s(D(G(z)))``, and minus :func:`minimax` for the critic.

    References:
        Goodfellow et al. (2014), Section 3. https://arxiv.org/abs/1406.2661
    """
    return softplus(-fake).mean(), -minimax(real, fake)


def hinge(real: Tensor, fake: Tensor) -> Pair:
    """Return the pair ``-mean D(G(z))``, ``mean max(0, 1 - D(x)) + mean max(0, 1 + D(G(z)))``.

    References:
        Lim and Ye (2017). https://arxiv.org/abs/1705.02894
        Miyato et al. (2018), eq. (16) and (17). https://arxiv.org/abs/1802.05957
    """
    return -fake.mean(), relu(1 - real).mean() + relu(1 + fake).mean()


def least_squares(real: Tensor, fake: Tensor) -> Pair:
    """Return the pair ``mean (D(G(z)) - 1)^2 / 2``, ``mean (D(x) - 1)^2 / 2 + mean D(G(z))^2 / 2``.

    Do not combine the pair into ``(D(G(z)) - 1)^2 - (D(x) - 1)^2``: the critic can raise this
    without bound. The loss of :func:`zero_sum` is bounded above.

    References:
        Mao et al. (2017), eq. (9). https://arxiv.org/abs/1611.04076
    """
    critic = (real - 1).square().mean() / 2 + fake.square().mean() / 2
    return (fake - 1).square().mean() / 2, critic


def relativistic(real: Tensor, fake: Tensor) -> Pair:
    """Return the pair ``-mean log s(D(G(z)) - D(x))``, ``-mean log s(D(x) - D(G(z)))``.

    ``fake`` has the shape of ``real``: each generated sample is compared with one real sample.

    Raises:
        ValueError: if the shapes differ.

    References:
        Jolicoeur-Martineau (2019), eq. (3) and (4). https://arxiv.org/abs/1807.00734
    """
    if real.shape != fake.shape:
        raise ValueError(
            f"`real` and `fake` must have the same shape, got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}. `relativistic_average` takes different shapes."
        )
    return softplus(real - fake).mean(), softplus(fake - real).mean()


def relativistic_average(real: Tensor, fake: Tensor) -> Pair:
    """Return the pair that compares each score with the mean score of the other kind.

    With ``r = D(x) - mean D(G(z))`` and ``f = D(G(z)) - mean D(x)``, the critic lowers ``-mean log
    s(r) - mean log s(-f)``, the generator ``-mean log s(f) - mean log s(-r)``.

    References:
        Jolicoeur-Martineau (2019), eq. (7) and (8). https://arxiv.org/abs/1807.00734
    """
    r, f = real - fake.mean(), fake - real.mean()
    return (
        softplus(-f).mean() + softplus(r).mean(),
        softplus(-r).mean() + softplus(f).mean(),
    )


def zero_sum(pair: Pair) -> Tensor:
    """Return a zero-sum loss for a pair: minus the critic's loss.

    Its linear system is positive definite. The game changes: the critic's gradients stay the same,
    but the generator now raises the critic's loss.

    Args:
        pair: the generator's loss, which is ignored, and the critic's.

    Example:
        >>> import torch
        >>> real, fake = torch.randn(2, 8)
        >>> torch.equal(zero_sum(non_saturating(real, fake)), minimax(real, fake))
        True
    """
    return -pair[1]
