"""Digits by GANs without any regularization: ACGD compared with Adam in the same time.

There is no penalty, clipping, normalization, extra critic step or averaging. All runs start from
the same networks and differ only in loss and optimizer. Adam moves both networks at once, at the
better of the learning rates 1e-3 and 1e-4. With its usual momentum, 0.9, it fails on the plain
Wasserstein loss; with 0.5, as is customary for GANs, and 0.99 as its second beta it does not (with
0.999 it failed for one seed of two). ACGD has no momentum to choose.

Time is processor time, so other programs do not reduce the number of steps. Results vary a little
between machines and runs, because the number of steps varies.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from digits_judge import Judge, real_digits
from digits_report import draw, write_table
from side_by_side import Bar, side_by_side
from torch import Tensor
from two_players import LOSSES, Optimizer, mlp, take_step, two_groups

from compopt import ACGD, ConjugateGradient

NOISE, WIDTH, BATCH, DRAWN, LOOKS = 8, 128, 128, 1000, 20
# By name, the momentum of Adam.
OPTIMIZERS = {"ACGD": None, "Adam 0.9": 0.9, "Adam 0.5": 0.5}


class Outcome(NamedTuple):
    """Counts of a run, and its samples [n, 64], pixels from 0 to 16, by seconds of training."""

    steps: int
    products: int
    samples: dict[float, Tensor]


def train(run: tuple[str, str, float, int], bar: Bar) -> Outcome:
    """Train on one thread until the time is used up; evaluating samples does not count."""
    loss_name, name, limit, seed = run
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    images = real_digits()[0] / 8 - 1
    generator, critic = mlp(NOISE, WIDTH, WIDTH, 64), mlp(64, WIDTH, WIDTH, 1)
    players = generator.parameters(), critic.parameters()
    momentum = OPTIMIZERS[name]
    optimizer: Optimizer
    if momentum is None:
        # A relative error of 0.1 is well below the batch noise, and leaves time for more steps.
        optimizer = ACGD(*players, lr=2e-3, solver=ConjugateGradient(rtol=0.1))
    else:
        optimizer = torch.optim.Adam(two_groups(*players), lr=1e-3, betas=(momentum, 0.99))
    fixed_noise = torch.randn(DRAWN, NOISE)
    steps, products, seconds, samples = 0, 0, 0.0, dict[float, Tensor]()
    while seconds < limit:
        start = time.process_time()
        real = images[torch.randint(len(images), (BATCH,))]
        fake = generator(torch.randn(BATCH, NOISE))
        take_step(optimizer, LOSSES[loss_name](critic(real), critic(fake)))
        steps, seconds = steps + 1, seconds + time.process_time() - start
        if isinstance(optimizer, ACGD) and optimizer.last_step:
            products += optimizer.last_step.num_hvp
        if seconds >= limit * (len(samples) + 1) / LOOKS:
            bar.set(seconds / limit)
            with torch.no_grad():
                samples[seconds] = (8 * generator(fixed_noise) + 8).clamp(0, 16)
    return Outcome(steps, products, samples)


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run the demo; return the rows of its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=28.0, help="of training, for each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/digits_gan"))
    args = parser.parse_args(argv)

    pairs = [(loss, name) for loss in LOSSES for name in OPTIMIZERS]
    runs = {f"{loss}, {name}": (loss, name, args.seconds, args.seed) for loss, name in pairs}
    outcomes = dict(zip(pairs, side_by_side(train, runs).values(), strict=True))
    judge, rows = Judge(), []
    for (loss, name), (steps, products, samples) in outcomes.items():
        row = {"loss": loss, "optimizer": name, "steps": steps, "mixed products": products}
        seconds, last = list(samples.items())[-1]
        rows.append({**row, "seconds": round(seconds, 1), **judge.scores(last)})

    args.out.mkdir(parents=True, exist_ok=True)
    write_table(rows, args.out / "table.csv")
    taken = {pair: outcome.samples for pair, outcome in outcomes.items()}
    draw(judge, taken, args.out)
    print(f"Wrote the table, samples and curves to {args.out}")
    return rows


if __name__ == "__main__":
    main()
