"""Games that estimate a distribution."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from compopt._checks import check_count
from compopt.games.base import TestGame, sorted_spectrum


def dirac_gan() -> TestGame:
    """Return the Dirac-GAN: one data point at 0, a generated point x, a linear discriminator y.

    ``f = -softplus(x y) - log 2``: the min player moves x so that the discriminator scores it as
    data, the max player discriminates between x and 0. Descent-ascent circles.

    The Jacobian at the solution is antisymmetric with eigenvalues ``± i / 2``.
    """
    zero = torch.zeros(1, dtype=torch.float64)
    return TestGame(
        name="Dirac-GAN",
        # log sigmoid of the data's score, which is 0, and log (1 - sigmoid) of the point's.
        loss=lambda x, y: (-softplus(x * y)).sum() - math.log(2),
        start=(torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)),
        solution=(zero, zero.clone()),
        spectrum=sorted_spectrum(torch.tensor([0.5j, -0.5j])),
        source="Mescheder, Geiger and Nowozin (2018), https://arxiv.org/abs/1801.04406",
    )


def covariance_estimation(
    size: int = 20, *, num_samples: int | None = None, seed: int = 0
) -> TestGame:
    """Return the covariance-estimation game of the CGD paper.

    ``f(V, W) = sum_ij W_ij (V V' - S)_ij``: the min player fits ``V V'`` to ``S = U U'``, where U
    has independent standard normal entries, and the max player's W weights the differences. The
    start is the solution (U, 0) plus uniform noise in [-1/2, 1/2]. The sign is that of the paper's
    code.

    The spectrum is not known in closed form. :func:`covariance_error` is the error that the paper
    measures, ``|W + W'| / 2 + |U U' - V V'|``.

    Args:
        size: number of rows of V and of W; the paper uses 20, 40 and 60.
        num_samples: number of samples of N(0, S) and of N(0, V V') whose covariances each
            evaluation uses; None for exact covariances.
        seed: seed of U, the start and the samples.
    """
    check_count("size", size, minimum=1)
    if num_samples is not None:
        check_count("num_samples", num_samples, minimum=1)
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(size, size, generator=generator, dtype=torch.float64)
    noise = torch.rand(2, size, size, generator=generator, dtype=torch.float64) - 0.5

    def sample_covariance(factor: Tensor) -> Tensor:
        assert num_samples is not None
        normal = torch.randn(size, num_samples, generator=generator, dtype=torch.float64)
        points = factor @ normal.to(factor)
        return points @ points.T / num_samples

    def loss(v: Tensor, w: Tensor) -> Tensor:
        if num_samples is None:
            difference = v @ v.T - (u @ u.T).to(v)
        else:
            difference = sample_covariance(v) - sample_covariance(u.to(v))
        return (w * difference).sum()

    return TestGame(
        name=f"covariance estimation, d = {size}",
        loss=loss,
        start=(u + noise[0], noise[1]),
        solution=(u, torch.zeros_like(u)),
        spectrum=None,
        source="Schäfer and Anandkumar (2019), https://arxiv.org/abs/1905.12103",
    )


def covariance_error(game: TestGame, v: Tensor, w: Tensor) -> float:
    """Return ``|W + W'| / 2 + |U U' - V V'|``, Frobenius: zero at every solution. Reads a value."""
    assert game.solution is not None
    u, v, w = game.solution[0], v.detach(), w.detach()
    residual = torch.linalg.matrix_norm(u @ u.T - v @ v.T)
    return float(torch.linalg.matrix_norm(w + w.T) / 2 + residual)
