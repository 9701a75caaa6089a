"""Modes that GANs find on a ring of eight Gaussians: plain, with each regularizer, and ACGD.

The setting is one where the plain GAN fails: a Wasserstein loss without any constraint, and Adam
with a learning rate of 1e-3, a momentum of 0.5 and a second beta of 0.99. Each regularizer is added
to that run with its default coefficient, untuned; ACGD has none. All use the same networks,
seeds and number of backward passes, so that a dearer step means fewer of them.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from gaussian_mixture_gan import BATCH, DRAWN, NOISE, RING, WIDTH, real_points
from mode_report import draw, found, write_table
from side_by_side import Bar, side_by_side
from torch import nn
from two_players import Optimizer, mlp, take_step, two_groups, wasserstein

from compopt import ACGD, penalties

LAYERS = penalties.Layers(kinds=("linear",))


def jitter(points: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Augment points of the plane by noise as wide as a mode."""
    return points + 0.05 * torch.randn(points.shape, generator=generator)


# By name: the term, what it takes, and the backward passes that it adds to the one of the loss.
TERMS: dict[str, tuple[penalties.Penalty, str, int]] = {
    "DRAGAN": (penalties.Dragan(), "critic real", 2),
    "WGAN-GP": (penalties.WganGP(), "critic real fake", 2),
    "R1": (penalties.R1(), "critic real", 2),
    "R2": (penalties.R2(), "critic fake", 2),
    "AdvAs": (penalties.AdvAs(), "loss critic generator", 4),
    "diversity": (penalties.Diversity(layers=LAYERS), "critic", 1),
    "spectral penalty": (penalties.SpectralPenalty(layers=LAYERS), "critic", 1),
    "orthogonal": (penalties.Orthogonal(layers=LAYERS), "critic", 1),
    "L2": (penalties.L2(), "critic", 1),
    "consistency": (penalties.BalancedConsistency(augment=jitter), "critic real fake", 1),
}
# By name: what is done to the critic's weights after a step.
PROJECTIONS: dict[str, Callable[[nn.Module], Callable[[], object]]] = {
    "SR-GAN": lambda critic: penalties.SpectralRegularizer(critic, layers=LAYERS).step,
    "clipping": lambda critic: lambda: penalties.WeightClipping()(critic),
}
NAMES = ["plain", "ACGD", *TERMS, *PROJECTIONS]


def train(run: tuple[str, int, int], bar: Bar) -> list[torch.Tensor]:
    """Return samples for each seed after ``budget`` backward passes."""
    (name, seeds, budget), drawn = run, []
    torch.set_num_threads(1)
    for seed in range(seeds):
        torch.manual_seed(seed)
        generator, critic = mlp(NOISE, WIDTH, WIDTH, 2), mlp(2, WIDTH, WIDTH, 1)
        players = list(generator.parameters()), list(critic.parameters())
        optimizer: Optimizer = ACGD(*players, lr=2e-3)
        if name != "ACGD":
            optimizer = torch.optim.Adam(two_groups(*players), lr=1e-3, betas=(0.5, 0.99))
        project = PROJECTIONS[name](critic) if name in PROJECTIONS else lambda: None
        passes = 0
        while passes < budget:
            real, fake = real_points("ring", BATCH), generator(torch.randn(BATCH, NOISE))
            loss = wasserstein(critic(real), critic(fake))
            given: dict[str, Any] = {"critic": critic, "generator": generator, "loss": loss}
            given.update(real=real, fake=fake)
            term, takes, extra = TERMS.get(name, (None, "", 0))
            penalty = term and term(*(given[key] for key in takes.split()))
            take_step(optimizer, loss, *((penalty, None) if name == "AdvAs" else (None, penalty)))
            project()
            report = optimizer.last_step if isinstance(optimizer, ACGD) else None
            passes += 1 + (report.num_hvp if report else extra)
            bar.set((seed + passes / budget) / seeds)
        drawn.append(generator(torch.randn(DRAWN, NOISE)).detach())
    return drawn


def main(argv: Sequence[str] | None = None) -> dict[str, list[int]]:
    """Run the example; return the modes found by name and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--passes", type=int, default=6000, help="backward passes of each run")
    parser.add_argument("--out", type=Path, default=Path("out/mode_collapse"))
    args = parser.parse_args(argv)
    samples = side_by_side(train, {name: (name, args.seeds, args.passes) for name in NAMES})
    scores = {name: [found(points, RING) for points in drawn] for name, drawn in samples.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(scores, args.out / "modes.csv")
    draw(samples, scores, RING, args.out / "modes.png")
    print(f"Wrote modes.csv and modes.png to {args.out}")
    return {name: [modes for modes, _ in scores[name]] for name in NAMES}


if __name__ == "__main__":
    main()
