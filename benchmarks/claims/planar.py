"""GANs in the plane: modes, good samples and the critic's slope, looked at during training."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import perceptron
from benchmarks.plane import SIGMA, draw, score
from compopt import ACGD, ConjugateGradient, losses, penalties
from compopt.penalties import Penalty

LOOKS = 40
"""How often a run is looked at."""
LOSSES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "wasserstein": losses.wasserstein,
    "non-saturating": losses.non_saturating,
}
TERMS: dict[str, Callable[[], Penalty]] = {
    "dragan": penalties.Dragan,
    "wgan-gp": penalties.WganGP,
    "advas": penalties.AdvAs,
}


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
        data: a key of `benchmarks.plane.PLACES`.
        loss: a key of :data:`LOSSES`.
        terms: keys of :data:`TERMS`, added with their published coefficients.
        critic_steps: of the critic for each of the generator.
        optimizer: "adam" (lr 1e-3, betas 0.5 and 0.9), or "acgd" (lr 2e-3, one iteration).
        sizes: hidden layers of both networks.
        activation: a class of ``torch.nn``.
        steps: of the generator.
    """

    data: str = "ring"
    loss: str = "non-saturating"
    terms: list[str] = field(default_factory=list)
    critic_steps: int = 1
    optimizer: str = "adam"
    sizes: tuple[int, ...] = (128, 128)
    activation: str = "LeakyReLU"
    steps: int = 1600


def _network(inputs: int, setting: Setting, outputs: int) -> nn.Sequential:
    activation = getattr(nn, setting.activation)
    return perceptron(inputs, *setting.sizes, outputs, activation=activation)


def slope(critic: nn.Module, data: str) -> float:
    """Return the mean norm of the critic's gradient near real points."""
    points = (draw(data, 256) + SIGMA * torch.randn(256, 2)).requires_grad_()
    (grad,) = torch.autograd.grad(critic(points).sum(), points)
    return float(grad.norm(dim=1).mean())


def train(setting: Setting, seed: int) -> dict[str, Any]:
    """Return the last scores, and steps, places found and slopes at each look."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    generator, critic = _network(8, setting, 2), _network(2, setting, 1)
    move = _moves(setting, generator, critic)
    looks: dict[str, list[float]] = {"step": [], "found": [], "slope": []}
    last: dict[str, float] = {}
    for step in range(1, setting.steps + 1):
        move()
        if step % (setting.steps // LOOKS) == 0:
            with torch.no_grad():
                last = score(setting.data, generator(torch.randn(1000, 8)))
            looks["step"].append(step)
            looks["found"].append(last["found"])
            looks["slope"].append(round(slope(critic, setting.data), 4))
    return {**last, "looks": looks}


def _moves(setting: Setting, generator: nn.Module, critic: nn.Module) -> Callable[[], None]:
    loss_of, terms = LOSSES[setting.loss], {name: TERMS[name]() for name in setting.terms}

    def objective(player: int) -> Tensor:
        """Return what the generator (0) or the critic (1) lowers, on a new batch."""
        real, fake = draw(setting.data, 128), generator(torch.randn(128, 8))
        found = loss_of(critic(real), critic(fake))
        both = found if isinstance(found, tuple) else (found, -found)
        total = both[player]
        for term in terms.values():
            if (term.player == "min") == (player == 0):
                given = {"critic": critic, "module": critic, "real": real, "fake": fake}
                # The adversary's own loss, without other terms.
                given |= {"loss": both[1], "generator_loss": both[0], "min_params": players[0]}
                total = total + term.on(**given)
        return total

    players = [list(generator.parameters()), list(critic.parameters())]
    if setting.optimizer == "acgd":
        solver = ConjugateGradient(rtol=0.0, max_iter=1)
        acgd = ACGD(*players, lr=2e-3, solver=solver)
        return lambda: acgd.step(objective(0)) and None
    adams = [torch.optim.Adam(params, lr=1e-3, betas=(0.5, 0.9)) for params in players]

    def move() -> None:
        for player in (*[1] * setting.critic_steps, 0):
            grads = torch.autograd.grad(objective(player), players[player])
            for param, grad in zip(players[player], grads, strict=True):
                param.grad = grad
            adams[player].step()

    return move
