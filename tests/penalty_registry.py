"""Every penalty, in settings that show what it declares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compopt import penalties
from compopt.penalties import FlipAndShift, Layers, Penalty


class Sine(torch.autograd.Function):
    """The ``order``-th derivative of the sine; each records that it was evaluated."""

    evaluated: list[int]

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.order = order
        Sine.evaluated.append(order)
        return (x + order * torch.pi / 2).sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grad * Sine.apply(x, ctx.order + 1), None


class CountingSine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Sine.apply(x, 0)


class Image(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 2, 6, 6)


class GanBatch:
    """Two small networks, a batch, and everything that a penalty can take."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        torch.manual_seed(5)
        Sine.evaluated = []
        self.network = nn.Sequential(nn.Linear(3, 72), CountingSine(), Image()).to(dtype)
        self.critic = nn.Sequential(
            nn.Conv2d(2, 6, 3, stride=2),
            CountingSine(),
            nn.ConvTranspose2d(6, 4, 2),
            CountingSine(),
            nn.Flatten(),
            nn.Linear(36, 1),
        ).to(dtype)
        self.real = torch.randn(5, 2, 6, 6, dtype=dtype)
        self.noise = torch.randn(5, 3, dtype=dtype)
        self.min_params = list(self.network.parameters())
        self.max_params = list(self.critic.parameters())

    def fake(self) -> Tensor:
        return self.network(self.noise)

    def loss(self) -> Tensor:
        scores = self.critic(self.real), self.critic(self.fake())
        return (scores[0].tanh() - scores[1].tanh()).mean()

    def inputs(self) -> dict[str, Any]:
        return {
            "critic": self.critic,
            "module": self.critic,
            "real": self.real,
            "fake": self.fake(),
            "points": self.real,
            "loss": self.loss(),
            "min_params": self.min_params,
            "generator": torch.Generator().manual_seed(9),
        }

    def term(self, penalty: Penalty) -> Tensor:
        """Return the penalty; equal calls see equal random numbers."""
        return penalty.on(**self.inputs())


@dataclass(frozen=True)
class Setting:
    """A penalty, and whether and how it is to couple."""

    name: str
    build: Callable[[], Penalty]
    couples: bool = False
    order: int = 2

    def __str__(self) -> str:
        return self.name


LOW = {"threshold": 0.05}
SMALL = FlipAndShift(max_shift=1)
BOTH = Layers(kinds=("conv", "linear"))

SETTINGS = [
    Setting("dragan", penalties.Dragan),
    Setting("dragan-paper", lambda: penalties.Dragan(perturbation="paper", scale=0.1)),
    Setting("gradient-penalty", penalties.GradientPenalty),
    Setting("wgan-gp", penalties.WganGP),
    Setting("wgan-gp-one-sided", lambda: penalties.WganGP(one_sided=True, target=0.1)),
    Setting("wgan-gp-zero-centred", lambda: penalties.WganGP(target=0.0)),
    Setting("wgan-gp-attached", lambda: penalties.WganGP(detach=False), couples=True),
    Setting("r1", penalties.R1),
    Setting("r2", penalties.R2),
    Setting("r2-attached", lambda: penalties.R2(detach=False), couples=True),
    Setting("advas", penalties.AdvAs, couples=True),
    Setting("advas-fixed", lambda: penalties.AdvAs(coefficient=0.1), couples=True),
    Setting("advas-signs", lambda: penalties.AdvAs(0.1, estimator="rademacher"), couples=True),
    Setting("diversity", lambda: penalties.Diversity(**LOW), order=0),
    Setting("spectral", penalties.SpectralPenalty, order=0),
    Setting("l2", penalties.L2, order=0),
    Setting("orthogonal", penalties.Orthogonal, order=0),
    Setting("orthonormal", lambda: penalties.Orthogonal(diagonal=True, layers=BOTH), order=0),
    Setting("consistency", lambda: penalties.Consistency(augment=SMALL), order=1),
    Setting("balanced", lambda: penalties.BalancedConsistency(augment=SMALL), order=1),
    Setting(
        "balanced-attached",
        lambda: penalties.BalancedConsistency(augment=SMALL, detach=False),
        couples=True,
        order=1,
    ),
]

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=str)


def player_of(penalty: Penalty) -> str:
    """Return whose term it is here, where terms on weights are given the critic."""
    return penalty.player or "max"
