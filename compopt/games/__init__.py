"""Standard test games with their known solutions and spectra."""

from compopt.games.base import TestGame
from compopt.games.estimation import covariance_error, covariance_estimation, dirac_gan
from compopt.games.exploitability import exploitability
from compopt.games.matrix import matching_pennies, matrix_game, rock_paper_scissors
from compopt.games.mixture import MixtureGAN, two_gaussian_gan
from compopt.games.quadratic import (
    bilinear,
    implicit_regularization,
    monotone_quadratic,
    separable,
)

__all__ = [
    "MixtureGAN",
    "TestGame",
    "bilinear",
    "covariance_error",
    "covariance_estimation",
    "dirac_gan",
    "exploitability",
    "implicit_regularization",
    "matching_pennies",
    "matrix_game",
    "monotone_quadratic",
    "rock_paper_scissors",
    "separable",
    "two_gaussian_gan",
]
