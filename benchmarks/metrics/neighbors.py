"""Precision, recall, coverage and repetition from nearest neighbors, free of any network."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK = 1000
"""Rows of a distance matrix held at once."""


class Fidelity(NamedTuple):
    """What the neighbors say of a set of samples.

    Attributes:
        precision: share of samples inside a real image's ball. One real outlier with a wide ball is
            enough: uniform noise scores 0.79 on features of the CIFAR-10 classifier.
        recall: share of real images inside a sample's ball.
        density: mean number of real balls that a sample is in, over k; 1 for real images.
        coverage: share of real images whose ball has a sample in it.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def _distances(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    # |a|^2 + |b|^2 - 2 a.b cancels less about the mean.
    center = columns.mean(0)
    columns = (columns - center).T
    norms = columns.square().sum(0)
    for chunk in rows.split(CHUNK):
        part = chunk - center
        squared = part.square().sum(1, keepdim=True) + norms - 2 * part @ columns
        yield squared.clamp_(min=0).sqrt_()


def _radii(features: Tensor, k: int) -> Tensor:
    """Return each row's distance to its k-th nearest other row."""
    # The row itself is among the k + 1 nearest.
    chunks = _distances(features, features)
    return torch.cat([chunk.topk(k + 1, dim=1, largest=False).values[:, -1] for chunk in chunks])


def fidelity(samples: Tensor, real: Tensor, k: int = 3) -> Fidelity:
    """Return precision, recall, density and coverage from balls about k-th nearest neighbors.

    Args:
        samples, real: [n, d], the same n, which all values depend on.
        k: neighbor whose distance is the radius of a ball.

    Raises:
        ValueError: if the shapes differ or n <= k.

    Cost: 3 n^2 d operations; 1000 n numbers of memory.

    References:
        Kynkaanniemi et al. (2019), section 2. https://arxiv.org/abs/1904.06991
        Naeem et al. (2020), section 3.2. https://arxiv.org/abs/2002.09797
    """
    if samples.shape != real.shape or len(samples) <= k:
        shapes = tuple(samples.shape), tuple(real.shape)
        raise ValueError(f"Both features must be [n, d] with the same n > {k}, got {shapes}.")
    real_radii = _radii(real, k)
    sample_radii = _radii(samples, k).split(CHUNK)
    plausible, balls = 0, 0
    recalled = torch.zeros(len(real), dtype=torch.bool)
    covered = torch.zeros(len(real), dtype=torch.bool)
    for chunk, radii in zip(_distances(samples, real), sample_radii, strict=True):
        inside = chunk <= real_radii
        plausible += int(inside.any(1).sum())
        balls += int(inside.sum())
        covered |= inside.any(0)
        recalled |= (chunk <= radii[:, None]).any(0)
    return Fidelity(
        precision=plausible / len(samples),
        recall=float(recalled.double().mean()),
        density=balls / (k * len(samples)),
        coverage=float(covered.double().mean()),
    )


def relative_nearest(features: Tensor) -> Tensor:
    """Return each row's distance to its nearest other row, over the set's own scale, [n].

    The scale is the root mean square distance of two rows. Near zero for a row that occurs twice;
    zero throughout where all rows are equal.
    """
    nearest = _radii(features, 1)
    scale = (2 * (features - features.mean(0)).square().sum(1).mean()).sqrt()
    # A scale of mere rounding errors would make equal rows look far apart.
    spread = scale > 1e-5 * features.abs().max()
    return nearest / scale if spread else torch.zeros_like(nearest)


def repetition(samples: Tensor, real: Tensor, quantile: float = 0.01) -> float:
    """Return the share of samples that lie closer to another sample than real images do.

    Closer means: nearer, relative to the scale of the set, than all but a hundredth of the real
    images are to each other, so that real images score a hundredth. Sees copies and near copies,
    also inside a class, where a classifier score is blind.

    Args:
        samples, real: [n, d], the same n: neighbors come nearer the more there are.
        quantile: the share of real images that counts as repeated.

    Raises:
        ValueError: if the shapes differ.
    """
    if samples.shape != real.shape:
        shapes = tuple(samples.shape), tuple(real.shape)
        raise ValueError(f"Both features must be [n, d] with the same n, got {shapes}.")
    threshold = relative_nearest(real).quantile(quantile)
    return float((relative_nearest(samples) <= threshold).double().mean())


def duplicates(images: Tensor) -> float:
    """Return the share of images that equal an earlier one to the last bit.

    Args:
        images: [n, ...] integers.
    """
    return 1 - len(images.flatten(1).unique(dim=0)) / len(images)
