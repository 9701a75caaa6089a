"""The optimizers whose step cost is compared, behind one interface."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compopt import ACGD, ConjugateGradient

LR = 1e-4
"""The published learning rate of both players, used by every contestant."""

LossFn = Callable[[], Tensor]
Step = Callable[[LossFn], None]


@dataclass(frozen=True)
class Contestant:
    """An optimizer under test.

    Attributes:
        name: how tables call it.
        build: from generator and critic, returns a function that takes one step on a loss.
    """

    name: str
    build: Callable[[nn.Module, nn.Module], Step]


def _adam(generator: nn.Module, critic: nn.Module) -> Step:
    players = (
        torch.optim.Adam(generator.parameters(), lr=LR),
        torch.optim.Adam(critic.parameters(), lr=LR, maximize=True),
    )

    def step(loss_fn: LossFn) -> None:
        for player in players:
            player.zero_grad()
        loss_fn().backward()
        for player in players:
            player.step()

    return step


def _acgd(**options: object) -> Callable[[nn.Module, nn.Module], Step]:
    def build(generator: nn.Module, critic: nn.Module) -> Step:
        optimizer = ACGD(generator.parameters(), critic.parameters(), lr=LR, **options)
        return lambda loss_fn: optimizer.step(loss_fn)

    return build


def _cgds(generator: nn.Module, critic: nn.Module) -> Step:
    import CGDs

    optimizer = CGDs.ACGD(
        max_params=critic.parameters(), min_params=generator.parameters(), lr_max=LR, lr_min=LR
    )

    def step(loss_fn: LossFn) -> None:
        optimizer.zero_grad()
        optimizer.step(loss_fn())

    return step


def _torch_cgd(generator: nn.Module, critic: nn.Module) -> Step:
    import torch_cgd

    # Its default solver, GMRES, does not reach its tolerance in float32: it goes on to 1000
    # iterations and keeps a vector of the generator's size for each, 35 GB. This is its other one,
    # at the published tolerance, which is on squared norms there.
    solver = torch_cgd.solvers.CG(tol=1e-12)
    optimizer = torch_cgd.ACGD(generator.parameters(), critic.parameters(), lr=LR, solver=solver)

    def step(loss_fn: LossFn) -> None:
        optimizer.zero_grad()
        optimizer.step(loss_fn())

    return step


ADAM = Contestant("Adam, both players from one backward", _adam)
DEFAULT = Contestant("compopt ACGD", _acgd())
TIGHT = Contestant(
    "compopt ACGD, rtol=1e-6, cold", _acgd(solver=ConjugateGradient(rtol=1e-6, max_iter=1000))
)
CGDS = Contestant("CGDs 0.4.5 ACGD", _cgds)
TORCH_CGD = Contestant("torch-cgd 0.0.2 ACGD, CG, tol=1e-12", _torch_cgd)

CONTESTANTS = {
    "adam": ADAM,
    "compopt": DEFAULT,
    "compopt-tight": TIGHT,
    "cgds": CGDS,
    "torch-cgd": TORCH_CGD,
}
