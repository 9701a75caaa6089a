"""Explicit regularization: terms that a player minimises in addition to a game's loss.

Each exists as a function of tensors and modules, usable with any optimizer, and as a small
configured object: ``Dragan(coefficient=10.0)(critic, real)``. An object has attributes for its
player (``player``), whether it couples the players (``couples``) and the highest derivative of the
networks in its gradient (``order``); :func:`mixed_block_norm` measures the coupling of any term.

Pass a term that does not couple separately, ``optimizer.step(loss, max_penalty=term)``: the step is
the same as with ``loss - term``, but takes no derivative of the next order.
"""

from compopt.penalties.advas import AdvAs, advas_coefficient, adversary_gradient_norm
from compopt.penalties.base import Penalty, sign_in_loss
from compopt.penalties.catalogue import CATALOGUE, penalty
from compopt.penalties.collapse import (
    CollapseAlarm,
    CollapseMonitor,
    CollapseRule,
    CollapseWarning,
)
from compopt.penalties.consistency import (
    BalancedConsistency,
    Consistency,
    FlipAndShift,
    consistency_penalty,
)
from compopt.penalties.coupling import mixed_block_norm
from compopt.penalties.diversity import Diversity, GeometricThreshold, cosines, diversity_penalty
from compopt.penalties.dragan import Dragan, perturb
from compopt.penalties.gradient import GradientPenalty, critic_gradients, gradient_penalty
from compopt.penalties.layers import Layers
from compopt.penalties.lazy import Lazy
from compopt.penalties.spectra import block_power_iteration
from compopt.penalties.spectral import SpectralPenalty, SpectralRegularizer
from compopt.penalties.weights import L2, Orthogonal, WeightClipping
from compopt.penalties.wgan_gp import WganGP, interpolate
from compopt.penalties.zero_centred import R1, R2

__all__ = [
    "CATALOGUE",
    "L2",
    "R1",
    "R2",
    "AdvAs",
    "BalancedConsistency",
    "CollapseAlarm",
    "CollapseMonitor",
    "CollapseRule",
    "CollapseWarning",
    "Consistency",
    "Diversity",
    "Dragan",
    "FlipAndShift",
    "GeometricThreshold",
    "GradientPenalty",
    "Layers",
    "Lazy",
    "Orthogonal",
    "Penalty",
    "SpectralPenalty",
    "SpectralRegularizer",
    "WeightClipping",
    "WganGP",
    "advas_coefficient",
    "adversary_gradient_norm",
    "block_power_iteration",
    "consistency_penalty",
    "cosines",
    "critic_gradients",
    "diversity_penalty",
    "gradient_penalty",
    "interpolate",
    "mixed_block_norm",
    "penalty",
    "perturb",
    "sign_in_loss",
]
