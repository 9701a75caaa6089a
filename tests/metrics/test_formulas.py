"""The formulas against closed forms and independent computations."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from benchmarks.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from benchmarks.metrics.neighbors import duplicates, fidelity, relative_nearest, repetition
from benchmarks.metrics.scores import classifier_score, kernel_distance, squared_mmd


def random_gaussian(dimension: int, rank: int | None = None) -> Gaussian:
    factor = torch.randn(dimension, rank or dimension, dtype=torch.float64)
    return Gaussian(torch.randn(dimension, dtype=torch.float64), factor @ factor.T)


def by_sqrtm(first: Gaussian, second: Gaussian) -> float:
    root = scipy.linalg.sqrtm((first.covariance @ second.covariance).numpy())
    traces = first.covariance.trace() + second.covariance.trace() - 2 * np.trace(root).real
    return float((first.mean - second.mean).square().sum() + traces)


@pytest.mark.parametrize("dimension", [1, 2, 17, 64])
def test_frechet_equals_the_square_root_of_the_product(dimension):
    first, second = random_gaussian(dimension), random_gaussian(dimension)
    expected = by_sqrtm(first, second)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_commuting_gaussians_is_the_closed_form():
    # Of diagonal covariances it is the distance of means and of standard deviations.
    means, deviations = torch.randn(2, 5).double(), torch.rand(2, 5).double()
    gaussians = [Gaussian(m, torch.diag(d**2)) for m, d in zip(means, deviations, strict=True)]
    expected = (means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    assert frechet_distance(*gaussians) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("rank", [1, 5])
def test_frechet_is_exact_for_singular_covariances(rank):
    first = random_gaussian(20, rank)
    shift = torch.full((20,), 0.5, dtype=torch.float64)
    moved = Gaussian(first.mean + shift, first.covariance)
    assert frechet_distance(first, moved) == pytest.approx(5.0, rel=1e-6)
    wider = Gaussian(first.mean, 4 * first.covariance)
    # The deviations double, so their distance is the trace.
    expected = float(first.covariance.trace())
    assert frechet_distance(first, wider) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_equal_gaussians_is_zero_and_never_below():
    gaussian = random_gaussian(32)
    assert 0 <= frechet_distance(gaussian, gaussian) < 1e-8


def test_frechet_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="same dimension"):
        frechet_distance(random_gaussian(2), random_gaussian(3))
    broken = random_gaussian(2)
    broken.mean[0] = math.nan
    with pytest.raises(ValueError, match="finite"):
        frechet_distance(broken, random_gaussian(2))
    with pytest.raises(ValueError, match="n > 1"):
        fit_gaussian(torch.zeros(1, 3))


def test_the_fitted_gaussian_is_numpys():
    features = 1000 + torch.randn(50, 4)
    fitted = fit_gaussian(features)
    wide = features.double().numpy()
    np.testing.assert_allclose(fitted.mean, wide.mean(0), rtol=1e-13)
    np.testing.assert_allclose(fitted.covariance, np.cov(wide.T), rtol=1e-10)


def test_the_score_has_its_known_values():
    certain = torch.eye(10).repeat(10, 1)
    assert classifier_score(certain).value == pytest.approx(10)
    assert classifier_score(torch.full((100, 10), 0.1)).value == pytest.approx(1)
    # Half of the images are class 0 for sure, half of them undecided between 0 and 1.
    mixed = torch.tensor([[1.0, 0.0], [0.5, 0.5]]).repeat(10, 1)
    expected = math.exp(
        0.5 * math.log(1 / 0.75) + 0.25 * math.log(0.5 / 0.75) + 0.25 * math.log(0.5 / 0.25)
    )
    assert classifier_score(mixed).value == pytest.approx(expected, rel=1e-6)


def test_the_score_is_the_mean_over_consecutive_splits():
    probabilities = torch.rand(100, 10).softmax(1)
    parts = [classifier_score(part, splits=1).value for part in probabilities.split(10)]
    score = classifier_score(probabilities)
    assert score.value == pytest.approx(np.mean(parts))
    assert score.spread == pytest.approx(np.std(parts))
    with pytest.raises(ValueError, match=">= 10"):
        classifier_score(probabilities[:9])


def test_the_kernel_distance_is_the_sum_over_pairs():
    first, second = torch.randn(7, 3).double(), 1 + torch.randn(6, 3).double()

    def kernel(a, b):
        return (float(a @ b) / 3 + 1) ** 3

    within_first = [
        kernel(a, b) for i, a in enumerate(first) for j, b in enumerate(first) if i != j
    ]
    within = [kernel(a, b) for i, a in enumerate(second) for j, b in enumerate(second) if i != j]
    between = [kernel(a, b) for a in first for b in second]
    expected = np.mean(within_first) + np.mean(within) - 2 * np.mean(between)
    assert squared_mmd(first, second) == pytest.approx(expected, rel=1e-12)


def test_the_kernel_distance_has_no_bias():
    same = kernel_distance(torch.randn(4000, 8), torch.randn(4000, 8), block=200)
    assert abs(same.value) < 4 * same.spread
    moved = kernel_distance(torch.randn(4000, 8), 0.3 + torch.randn(4000, 8), block=200)
    assert moved.value > 10 * moved.spread
    with pytest.raises(ValueError, match="same n"):
        kernel_distance(torch.randn(5, 8), torch.randn(6, 8))


def by_loops(samples: torch.Tensor, real: torch.Tensor, k: int) -> tuple[float, ...]:
    def radius(points, index):
        return sorted(float((points[index] - p).norm()) for p in points)[k]

    real_radii = [radius(real, i) for i in range(len(real))]
    radii = [radius(samples, i) for i in range(len(samples))]
    apart = [[float((s - r).norm()) for r in real] for s in samples]
    n = len(real)
    inside = [[apart[i][j] <= real_radii[j] for j in range(n)] for i in range(n)]
    return (
        sum(any(row) for row in inside) / n,
        sum(any(apart[i][j] <= radii[i] for i in range(n)) for j in range(n)) / n,
        sum(sum(row) for row in inside) / (k * n),
        sum(any(inside[i][j] for i in range(n)) for j in range(n)) / n,
    )


@pytest.mark.parametrize("k", [1, 3])
def test_fidelity_is_what_the_definition_says(monkeypatch, k):
    monkeypatch.setattr("benchmarks.metrics.neighbors.CHUNK", 7)
    samples, real = 100 + 0.7 * torch.randn(25, 2), 100.5 + torch.randn(25, 2)
    # Nearly equal pairs far from the origin, where a plain difference of squares would cancel.
    assert tuple(fidelity(samples, real, k)) == pytest.approx(by_loops(samples, real, k))
    with pytest.raises(ValueError, match="same n"):
        fidelity(samples, real[1:])


def test_one_outlier_satisfies_precision_but_not_density():
    real = torch.cat([torch.randn(199, 4), torch.full((1, 4), 50.0)])
    noise = 40 + torch.rand(200, 4)
    found = fidelity(noise, real)
    assert found.precision == 1
    assert found.density < 0.5
    assert found.recall < 0.05
    assert found.coverage < 0.05


def test_repetition_sees_copies_at_any_scale_and_real_sets_have_few():
    real = torch.randn(1000, 16)
    assert repetition(torch.randn(1000, 16), real) < 0.03
    copies = torch.randn(500, 16).repeat(2, 1)
    assert repetition(copies, real) == 1
    assert repetition(1e-3 * (7 + torch.randn(1000, 16)), real) < 0.03
    half = torch.cat([torch.randn(500, 16), torch.randn(250, 16).repeat(2, 1)])
    assert repetition(half, real) == pytest.approx(0.5, abs=0.03)
    near = copies + 1e-3 * torch.randn(1000, 16)
    assert repetition(near, real) == 1
    assert repetition(torch.full((1000, 16), 3.3), real) == 1
    assert (relative_nearest(torch.full((10, 4), 3.3)) == 0).all()


def test_duplicates_are_those_after_the_first():
    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    assert duplicates(images) == 0
    assert duplicates(images[[0, 0, 0, 1]]) == 0.5
