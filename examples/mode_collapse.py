"""Modes that GANs find on a ring of eight Gaussians: plain, with each regularizer, and ACGD.

First a setting where the plain GAN fails: a Wasserstein loss without any constraint, and Adam with
a learning rate of 1e-3, a momentum of 0.5 and a second beta of 0.99. Each regularizer is added to
that run with its default coefficient, untuned; ACGD has none. Then the losses where plain Adam
finds all modes, and each term in the loss and with the critic steps of its authors. All use the
same networks, seeds and number of backward passes, so that a more expensive step means fewer of
them.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gaussian_mixture_gan import BATCH, DRAWN, NOISE, RING, WIDTH, real_points
from mode_report import draw, found, write_table
from side_by_side import Bar, side_by_side
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from two_players import mlp

from compopt import ACGD, losses, penalties

LAYERS = penalties.Layers(kinds=("linear",))


def jitter(points: Tensor, generator: torch.Generator | None) -> Tensor:
    """Augment points of the plane by noise as wide as a mode."""
    return points + 0.05 * torch.randn(points.shape, generator=generator)


# By name: the term, and the backward passes that it adds to a step of its player.
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
# By name: what is done to the critic's weights after a step.
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
        projection: a key of `PROJECTIONS`, or none.
        critic_steps: of the critic for each of the generator.
        is_competitive: ACGD with a learning rate of 2e-3, in place of Adam.
        is_normalized: the critic has spectral normalization.
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
    # Each in its authors' loss. L2 and the spectral penalty are not of any.
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


class Training:
    """A row's networks, and its steps.

    Attributes:
        passes: backward passes so far.
    """

    def __init__(self, row: Row) -> None:
        self.row, self.passes = row, 0
        self.generator, self.critic = mlp(NOISE, WIDTH, WIDTH, 2), mlp(2, WIDTH, WIDTH, 1)
        if row.is_normalized:
            for layer in self.critic:
                if isinstance(layer, nn.Linear):
                    spectral_norm(layer)
        self.players = [list(self.generator.parameters()), list(self.critic.parameters())]
        self.acgd = ACGD(self.players[0], self.players[1], lr=2e-3)
        self.adams = [torch.optim.Adam(p, lr=1e-3, betas=(0.5, 0.99)) for p in self.players]
        projection = PROJECTIONS.get(row.projection)
        self.project = projection(self.critic) if projection else lambda: None

    def step(self) -> None:
        """Move the critic as often as asked, and the generator once."""
        if self.row.is_competitive:
            self.acgd.step(self._loss()[0])
            self.passes += 1 + self.acgd.last_step.num_hvp
            return
        for _ in range(self.row.critic_steps - 1):
            self._move([1])
        self._move([0, 1])

    def _move(self, players: list[int]) -> None:
        """Move players from one evaluation of the loss."""
        loss, given = self._loss()
        is_zero_sum = isinstance(loss, Tensor)
        objectives = [loss, -loss] if is_zero_sum else list(loss)
        # What AdvAs takes: the losses without other terms.
        given |= {"loss": objectives[1], "generator_loss": objectives[0]}
        # One backward pass serves both players of a zero-sum game.
        self.passes += 1 if is_zero_sum else len(players)
        for term, extra in (TERMS[name] for name in self.row.terms):
            player = 0 if term.player == "min" else 1
            if player in players:
                objectives[player] = objectives[player] + term.on(**given)
                self.passes += extra
        grads = [
            torch.autograd.grad(objectives[player], self.players[player], retain_graph=True)
            for player in players
        ]
        for player, own in zip(players, grads, strict=True):
            for param, grad in zip(self.players[player], own, strict=True):
                param.grad = grad
            self.adams[player].step()
        self.project()

    def _loss(self) -> tuple[Any, dict[str, Any]]:
        real, fake = real_points("ring", BATCH), self.generator(torch.randn(BATCH, NOISE))
        given = {"critic": self.critic, "module": self.critic, "real": real, "fake": fake}
        given["min_params"] = self.players[0]
        return self.row.loss(self.critic(real), self.critic(fake)), given


def train(run: tuple[str, int, int], bar: Bar) -> list[Tensor]:
    """Return samples for each seed after ``budget`` backward passes."""
    (name, seeds, budget), drawn = run, []
    torch.set_num_threads(1)
    for seed in range(seeds):
        torch.manual_seed(seed)
        training = Training(ROWS[name])
        while training.passes < budget:
            training.step()
            bar.set((seed + training.passes / budget) / seeds)
        drawn.append(training.generator(torch.randn(DRAWN, NOISE)).detach())
    return drawn


def main(argv: Sequence[str] | None = None) -> dict[str, list[int]]:
    """Run the example; return the modes found by name and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=6000, help="backward passes of each run")
    parser.add_argument("--out", type=Path, default=Path("out/mode_collapse"))
    args = parser.parse_args(argv)
    samples = side_by_side(train, {name: (name, args.seeds, args.passes) for name in ROWS})
    scores = {name: [found(points, RING) for points in drawn] for name, drawn in samples.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(scores, args.out / "modes.csv")
    draw(samples, scores, RING, args.out / "modes.png")
    print(f"Wrote modes.csv and modes.png to {args.out}")
    return {name: [modes for modes, _ in scores[name]] for name in ROWS}


if __name__ == "__main__":
    main()
