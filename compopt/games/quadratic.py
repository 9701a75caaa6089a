"""Quadratic games, whose spectra determine which methods converge."""

import math

import torch
from torch import Tensor

from compopt._checks import check_count
from compopt.games.base import Loss, TestGame, sorted_spectrum

_CGD = "Schäfer and Anandkumar (2019), https://arxiv.org/abs/1905.12103"


def _scalar_game(
    name: str, loss: Loss, spectrum: list[complex], *, solved: bool, source: str = _CGD
) -> TestGame:
    half, zero = torch.full((1,), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return TestGame(
        name=name,
        loss=loss,
        start=(half, half.clone()),
        solution=(zero, zero.clone()) if solved else None,
        spectrum=sorted_spectrum(torch.tensor(spectrum, dtype=torch.complex128)),
        source=source,
    )


def bilinear(alpha: float = 1.0) -> TestGame:
    """Return ``alpha x y``: descent-ascent diverges, CGD contracts for any alpha."""
    return _scalar_game(
        f"bilinear, alpha = {alpha:g}",
        lambda x, y: alpha * (x * y).sum(),
        [alpha * 1j, -alpha * 1j],
        solved=True,
    )


def separable(alpha: float = 1.0) -> TestGame:
    """Return ``alpha (x^2 - y^2)``, without interaction: CGD is descent-ascent.

    For negative alpha the origin is each player's worst point, not an equilibrium: no method should
    converge to it.
    """
    return _scalar_game(
        f"separable, alpha = {alpha:g}",
        lambda x, y: alpha * (x.square() - y.square()).sum(),
        [2 * alpha, 2 * alpha],
        solved=alpha > 0,
    )


def implicit_regularization() -> TestGame:
    """Return ``x^2 + 10 x y + y^2``: it has no Nash equilibrium, but the origin is attracting.

    Simultaneous descent-ascent with step sizes 0.09 and 0.01 converges to it, at the rate
    ``sqrt(0.9264) = 0.9625``, though it is a minimum for the max player.
    """
    root = math.sqrt(96)
    return _scalar_game(
        "implicit regularization",
        lambda x, y: (x.square() + 10 * x * y + y.square()).sum(),
        [root * 1j, -root * 1j],
        solved=False,
        source="Schäfer, Zheng and Anandkumar (2020), https://arxiv.org/abs/1910.05852",
    )


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(
        torch.randn(size, size, generator=generator, dtype=torch.float64), mode="reduced"
    )
    signed: Tensor = q * torch.sign(torch.diagonal(r))
    return signed


def monotone_quadratic(
    size: int = 5,
    *,
    mu: float = 0.1,
    smoothness: float = 1.0,
    interaction: float = 1.0,
    seed: int = 0,
) -> TestGame:
    """Return a random quadratic game of known spectrum, with its solution away from the origin.

    ``f = x' P x / 2 + x' M y - y' P y / 2`` around the solution. P has eigenvalues spaced evenly
    from ``mu`` to ``smoothness``. M has the same eigenvectors and singular values spaced evenly
    from 0 to ``interaction``. The Jacobian's eigenvalues are ``p_i ± i m_i``.

    Args:
        size: number of parameters of each player.
        mu: smallest curvature; with mu > 0 the game is strongly monotone.
        smoothness: largest curvature.
        interaction: largest singular value of the mixed block.
        seed: seed of the eigenvectors, the solution and the start.
    """
    check_count("size", size, minimum=1)
    generator = torch.Generator().manual_seed(seed)
    left = _orthogonal(size, generator)
    curvatures = torch.linspace(mu, smoothness, size, dtype=torch.float64)
    couplings = torch.linspace(0, interaction, size, dtype=torch.float64).flip(0)
    p, m = (left @ torch.diag(values) @ left.T for values in (curvatures, couplings))
    x_star, y_star, x0, y0 = torch.randn(4, size, generator=generator, dtype=torch.float64)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        dx, dy = x - x_star.to(x), y - y_star.to(y)
        p_, m_ = p.to(x), m.to(x)
        value: Tensor = dx @ p_ @ dx / 2 + dx @ m_ @ dy - dy @ p_ @ dy / 2
        return value

    spectrum = torch.complex(curvatures.repeat(2), torch.cat([couplings, -couplings]))
    return TestGame(
        name=f"monotone quadratic, size {size}",
        loss=loss,
        start=(x0, y0),
        solution=(x_star, y_star),
        spectrum=sorted_spectrum(spectrum),
        source="",
    )
