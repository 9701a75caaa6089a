"""The classifier score and the kernel distance, free of any network."""

from typing import NamedTuple

import torch
from torch import Tensor

KERNEL_BLOCK = 1000
"""Images a block of the kernel distance, the published subset size."""


class Estimate(NamedTuple):
    """A value and its spread over splits or blocks."""

    value: float
    spread: float


def classifier_score(probabilities: Tensor, splits: int = 10) -> Estimate:
    """Return exp(E KL(p(y|x) || p(y))), averaged over consecutive splits.

    The formula of the inception score, for the probabilities of any classifier; between 1 and the
    number of classes. Blind to repetition inside a class: never use it alone.

    Args:
        probabilities: [n, k], rows sum to one.
        splits: parts with a p(y) of their own; the spread is their standard deviation.

    Raises:
        ValueError: if there are fewer rows than splits.

    References:
        Salimans et al. (2016), section 4. https://arxiv.org/abs/1606.03498
    """
    if probabilities.ndim != 2 or len(probabilities) < splits:
        shape = tuple(probabilities.shape)
        raise ValueError(f"`probabilities` must be [n, k] with n >= {splits}, got {shape}.")
    scores = []
    for part in probabilities.to(torch.float64).tensor_split(splits):
        marginal = part.mean(0)
        # 0 log 0 = 0; where the marginal is zero, so is every row.
        divergence = torch.special.xlogy(part, part) - torch.special.xlogy(part, marginal)
        scores.append(divergence.sum(1).mean().exp())
    values = torch.stack(scores)
    return Estimate(float(values.mean()), float(values.std(correction=0)))


def squared_mmd(first: Tensor, second: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy under (x.y / d + 1)^3.

    Args:
        first, second: [m, d] and [n, d] with m, n > 1.

    Cost: (m + n)^2 d operations in float64.

    References:
        Binkowski et al. (2018), section 4. https://arxiv.org/abs/1801.01401
    """
    first, second = first.to(torch.float64), second.to(torch.float64)

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return (left @ right.T / left.shape[1] + 1).pow(3)

    def within(features: Tensor) -> Tensor:
        values, n = kernel(features, features), len(features)
        return (values.sum() - values.trace()) / (n * (n - 1))

    return float(within(first) + within(second) - 2 * kernel(first, second).mean())


def kernel_distance(first: Tensor, second: Tensor, block: int = KERNEL_BLOCK) -> Estimate:
    """Return the unbiased squared MMD averaged over disjoint blocks.

    Zero in expectation for equal distributions at any n, so that unlike the Frechet distance it has
    no floor. Disjoint blocks, at least two, are independent; the spread is the standard error of
    their mean.

    Args:
        first, second: [n, d], the same n.
        block: most rows of a block.

    Raises:
        ValueError: if the shapes differ or there are fewer than four rows.
    """
    if first.shape != second.shape or len(first) < 4:
        shapes = tuple(first.shape), tuple(second.shape)
        raise ValueError(f"Both features must be [n, d] with the same n > 3, got {shapes}.")
    blocks = max(len(first) // block, 2)
    pairs = zip(first.tensor_split(blocks), second.tensor_split(blocks), strict=True)
    values = torch.tensor([squared_mmd(a, b) for a, b in pairs], dtype=torch.float64)
    return Estimate(float(values.mean()), float(values.std() / blocks**0.5))
