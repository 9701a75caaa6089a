"""Losses of GANs, from the critic's scores of real and of generated samples.

Each function takes ``real``, the critic's scores of real samples, and ``fake``, those of generated
ones with the graph of both players: do not detach the samples. Scores may have any shape; losses
are means over all of them. Where a sigmoid stands in the loss they are logits.

Returned is what ``optimizer.step`` takes: one zero-sum loss, or a pair ``(generator's, critic's)``
of which each player lowers its own.

A step on a pair has a backward pass more, and an unsymmetric linear system. :func:`zero_sum` makes
one loss of a pair.

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

    Without any constraint on the critic; add a penalty with ``max_penalty=``.

    References:
        Arjovsky, Chintala and Bottou (2017), eq. (2). https://arxiv.org/abs/1701.07875
    """
    return real.mean() - fake.mean()


def minimax(real: Tensor, fake: Tensor) -> Tensor:
    """Return the zero-sum cross entropy ``mean log s(D(x)) + mean log(1 - s(D(G(z))))``.

    ``s`` is the sigmoid, scores are logits. Also called the saturating loss: to a generator whose
    samples the critic rejects with certainty it gives next to no gradient.

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

    Do not subtract the critic's terms from the generator's to make one loss of them:
    ``(D(G(z)) - 1)^2 - (D(x) - 1)^2`` has no upper bound for the critic. :func:`zero_sum` has one.

    References:
        Mao et al. (2017), eq. (9). https://arxiv.org/abs/1611.04076
    """
    critic = (real - 1).square().mean() / 2 + fake.square().mean() / 2
    return (fake - 1).square().mean() / 2, critic


def relativistic(real: Tensor, fake: Tensor) -> Pair:
    """Return the pair ``-mean log s(D(G(z)) - D(x))``, ``-mean log s(D(x) - D(G(z)))``.

    ``fake`` is shaped as ``real``: each is compared with one real sample.

    Raises:
        ValueError: if the shapes differ.

    References:
        Jolicoeur-Martineau (2019), eq. (3) and (4). https://arxiv.org/abs/1807.00734
    """
    if real.shape != fake.shape:
        raise ValueError(
            f"`real` and `fake` must have one shape, got {tuple(real.shape)} and "
            f"{tuple(fake.shape)}. `relativistic_average` takes any."
        )
    return softplus(real - fake).mean(), softplus(fake - real).mean()


def relativistic_average(real: Tensor, fake: Tensor) -> Pair:
    """Return the pair that compares each sample with the mean of those of the other kind.

    With ``r = D(x) - mean D(G(z))`` and ``f = D(G(z)) - mean D(x)`` the critic lowers ``-mean log
    s(r) - mean log s(-f)``, and the generator ``-mean log s(f) - mean log s(-r)``.

    References:
        Jolicoeur-Martineau (2019), eq. (7) and (8). https://arxiv.org/abs/1807.00734
    """
    r, f = real - fake.mean(), fake - real.mean()
    return (
        softplus(-f).mean() + softplus(r).mean(),
        softplus(-r).mean() + softplus(f).mean(),
    )


def zero_sum(pair: Pair) -> Tensor:
    """Return the zero-sum loss of a pair: minus the critic's, which the generator then raises.

    Its linear system is positive definite. It is another game: the critic's gradients are the same,
    the generator's are not.

    Args:
        pair: the generator's loss, which is left out, and the critic's.

    Example:
        >>> import torch
        >>> real, fake = torch.randn(2, 8)
        >>> torch.equal(zero_sum(non_saturating(real, fake)), minimax(real, fake))
        True
    """
    return -pair[1]
