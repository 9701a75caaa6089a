"""The ways to train that ``mode_collapse.py`` compares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compopt import losses, penalties

LAYERS = penalties.Layers(kinds=("linear",))


def jitter(points: Tensor, generator: torch.Generator | None) -> Tensor:
    """Augment points of the plane with noise of a mode's width."""
    return points + 0.05 * torch.randn(points.shape, generator=generator)


# By name: the term, and the number of backward passes that it adds to its player's step.
TERMS: dict[str, tuple[penalties.Penalty, int]] = {
    "DRAGAN": (penalties.Dragan(), 2),
    "WGAN-GP": (penalties.WganGP(), 2),
    "R1": (penalties.R1(), 2),
    "R2": (penalties.R2(), 2),
    "AdvAs": (penalties.AdvAs(), 4),
    "diversity": (penalties.Diversity(layers=LAYERS), 1),
    "spectral penalty": (penalties.SpectralPenalty(layers=LAYERS), 1),
    "orthogonal": (penalties.Orthogonal(layers=LAYERS), 1),
    "L2": (penalties.L2(), 1),
    "consistency": (penalties.BalancedConsistency(augment=jitter), 1),
}
# By name: returns the function that changes the critic's weights after a step.
PROJECTIONS: dict[str, Callable[[nn.Module], Callable[[], object]]] = {
    "SR-GAN": lambda critic: penalties.SpectralRegularizer(critic, layers=LAYERS).step,
    "clipping": lambda critic: lambda: penalties.WeightClipping()(critic),
}


@dataclass(frozen=True)
class Row:
    """One way to train.

    Attributes:
        loss: a function of `compopt.losses`.
        terms: keys of `TERMS`.
        projection: a key of `PROJECTIONS`, or empty.
        critic_steps: critic steps for each generator step.
        is_competitive: whether to use ACGD with a learning rate of 2e-3 instead of Adam.
        is_normalized: whether the critic has spectral normalization.
    """

    loss: Callable[[Tensor, Tensor], Any] = losses.wasserstein
    terms: tuple[str, ...] = ()
    projection: str = ""
    critic_steps: int = 1
    is_competitive: bool = False
    is_normalized: bool = False


ROWS = {
    "plain": Row(),
    "ACGD": Row(is_competitive=True),
    **{name: Row(terms=(name,)) for name in TERMS},
    **{name: Row(projection=name) for name in PROJECTIONS},
    "plain, cross entropy": Row(losses.minimax),
    "ACGD, cross entropy": Row(losses.minimax, is_competitive=True),
    "plain, non-saturating": Row(losses.non_saturating),
    "plain, hinge": Row(losses.hinge),
    "plain, 5 critic steps": Row(critic_steps=5),
    # Each in its authors' loss. L2 and the spectral penalty have no published loss.
    "DRAGAN, non-saturating": Row(losses.non_saturating, ("DRAGAN",)),
    "WGAN-GP, 5 critic steps": Row(terms=("WGAN-GP",), critic_steps=5),
    "R1, non-saturating": Row(losses.non_saturating, ("R1",)),
    "R2, non-saturating": Row(losses.non_saturating, ("R2",)),
    "AdvAs + WGAN-GP, 5 critic steps": Row(terms=("AdvAs", "WGAN-GP"), critic_steps=5),
    "diversity, cross entropy": Row(losses.minimax, ("diversity",)),
    "orthogonal, hinge": Row(losses.hinge, ("orthogonal",)),
    "consistency, non-saturating": Row(losses.non_saturating, ("consistency",)),
    "SR-GAN, hinge": Row(losses.hinge, projection="SR-GAN", is_normalized=True),
    "clipping, 5 critic steps": Row(projection="clipping", critic_steps=5),
}
