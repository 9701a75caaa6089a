"""All penalties by name, for programs that choose one by configuration."""

from types import MappingProxyType
from typing import Any

from compopt._checks import check_choice
from compopt.penalties.advas import AdvAs
from compopt.penalties.base import Penalty
from compopt.penalties.consistency import BalancedConsistency, Consistency
from compopt.penalties.diversity import Diversity
from compopt.penalties.dragan import Dragan
from compopt.penalties.gradient import GradientPenalty
from compopt.penalties.spectral import SpectralPenalty
from compopt.penalties.weights import L2, Orthogonal
from compopt.penalties.wgan_gp import WganGP
from compopt.penalties.zero_centred import R1, R2

CATALOGUE: MappingProxyType[str, type[Penalty]] = MappingProxyType(
    {
        "diversity": Diversity,
        "spectral": SpectralPenalty,
        "dragan": Dragan,
        "advas": AdvAs,
        "gradient-penalty": GradientPenalty,
        "wgan-gp": WganGP,
        "r1": R1,
        "r2": R2,
        "l2": L2,
        "orthogonal": Orthogonal,
        "consistency": Consistency,
        "balanced-consistency": BalancedConsistency,
    }
)
"""Every penalty by its name."""


def penalty(name: str, **options: Any) -> Penalty:
    """Return the penalty called ``name``, configured with ``options``.

    Args:
        name: a key of :data:`CATALOGUE`.
        **options: attributes of the penalty.

    Raises:
        ValueError: if there is no penalty of that name.
        TypeError, ValueError: if the penalty's own checks fail.

    Example:
        >>> penalty("r1", coefficient=5.0)
        R1(coefficient=5.0)
    """
    check_choice("name", name, CATALOGUE)
    try:
        return CATALOGUE[name](**options)
    except TypeError as error:
        raise TypeError(f"The options of {name!r} are not valid: {error}") from error
