"""The Frechet distance between Gaussians, free of any network."""

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """Mean [d] and unbiased covariance [d, d] of features, float64."""

    mean: Tensor
    covariance: Tensor


def fit_gaussian(features: Tensor) -> Gaussian:
    """Return mean and unbiased covariance of features.

    Args:
        features: [n, d] with n > 1, any floating dtype.

    Raises:
        ValueError: if there are fewer than two rows.

    Cost: d^2 n operations in float64.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"`features` must be [n, d] with n > 1, got {tuple(features.shape)}.")
    features = features.to(torch.float64)
    mean = features.mean(0)
    centered = features - mean
    return Gaussian(mean, centered.T @ centered / (len(features) - 1))


def _symmetric_sqrt(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    # Rounding makes the zero eigenvalues of a rank-deficient covariance slightly negative.
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return the squared Frechet (2-Wasserstein) distance of two Gaussians.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the last trace taken of the symmetric
    (R C2 R)^(1/2) with R = C1^(1/2), which has the same eigenvalues. Unlike the square root of the
    product itself this is stable for singular covariances and cannot turn complex.

    Args:
        first, second: Gaussians of the same dimension d, float64.

    Raises:
        ValueError: if the dimensions differ or an entry is not finite.

    Cost: two symmetric eigendecompositions of size d.

    References:
        Dowson and Landau (1982), The Frechet distance between multivariate normal distributions.
    """
    if first.mean.shape != second.mean.shape:
        shapes = tuple(first.mean.shape), tuple(second.mean.shape)
        raise ValueError(f"Both Gaussians must have the same dimension, got {shapes}.")
    if not all(part.isfinite().all() for part in (*first, *second)):
        raise ValueError("The statistics must be finite; the features have NaN or infinity.")
    root = _symmetric_sqrt(first.covariance)
    product = root @ second.covariance @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    means = (first.mean - second.mean).square().sum()
    distance = means + first.covariance.trace() + second.covariance.trace() - 2 * cross
    # Equal Gaussians may end a rounding error below zero.
    return max(float(distance), 0.0)
