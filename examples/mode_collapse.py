"""Modes that GANs find on a ring of eight Gaussians: plain, with each regularizer, and ACGD.

In the first setting the plain GAN fails: a Wasserstein loss without any constraint, and Adam with a
learning rate of 1e-3, a momentum of 0.5 and a second beta of 0.99. Each regularizer is added to
this run with its default coefficient, untuned; ACGD has none. The other settings are the losses
with which plain Adam finds all modes, and each term with the loss and critic steps of its authors.
All use the same networks, seeds and number of backward passes, so a more expensive step means fewer
steps.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from gaussian_mixture_gan import DRAWN, NOISE, RING
from mode_report import draw, found, write_table
from mode_rows import ROWS
from mode_training import Training
from side_by_side import Bar, side_by_side
from torch import Tensor


def train(run: tuple[str, int, int], bar: Bar) -> list[Tensor]:
    """Train each seed with ``budget`` backward passes; return the samples."""
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
