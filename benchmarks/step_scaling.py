"""Growth of the cost of a step with the parameters, the batch, and the iterations.

Run ``python -m benchmarks.step_scaling``. Parameters and iterations vary in a game of fully
connected networks, whose work is proportional to their parameters; the batch varies in a DCGAN of a
quarter of the width, whose work is proportional to the batch. Each size is timed in turn, in
rounds, together with an Adam step of the same game.
"""

import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.cifar10 import dcgan
from benchmarks.contestants import CONTESTANTS, Step, acgd
from benchmarks.harness import arguments, in_turns, picture, write_result
from benchmarks.networks import num_parameters, wasserstein_loss
from benchmarks.workloads import Play, gan
from compopt import ConjugateGradient

LATENT_SIZE, DATA_SIZE, DEPTH = 64, 64, 3
WIDTHS = (64, 128, 256, 512, 1024, 2048)
BATCHES = (8, 16, 32, 64, 128, 256, 512)
ITERATIONS = (1, 2, 3, 4, 6, 8)
USUAL_WIDTH, USUAL_BATCH, USUAL_ITERATIONS = 1024, 128, 2
WARM_UP = 2


def fully_connected(width: int, batch_size: int) -> Play:
    """Return a Wasserstein game of two networks with three hidden layers."""

    def network(inputs: int, outputs: int) -> nn.Sequential:
        sizes = [inputs, *[width] * DEPTH, outputs]
        layers: list[nn.Module] = []
        for first, second in itertools.pairwise(sizes):
            layers += [nn.Linear(first, second), nn.LeakyReLU(0.1)]
        return nn.Sequential(*layers[:-1])

    torch.manual_seed(0)
    generator, critic = network(LATENT_SIZE, DATA_SIZE), network(DATA_SIZE, 1)

    def draw(random: torch.Generator) -> tuple[Tensor, ...]:
        real = torch.randn(batch_size, DATA_SIZE, generator=random)
        return real, torch.randn(batch_size, LATENT_SIZE, generator=random)

    return Play(generator, critic, draw, lambda batch: wasserstein_loss(generator, critic, *batch))


class Timed:
    """One size with one optimizer."""

    def __init__(self, play: Play, num_iter: int | None) -> None:
        self.num_parameters = num_parameters(play.min_player) + num_parameters(play.max_player)
        self._losses = play.losses(seed=1)
        solver = ConjugateGradient(rtol=0.0, max_iter=num_iter or 0)
        build = CONTESTANTS["adam"].build if num_iter is None else acgd(solver=solver)
        self._step: Step = build(play, 1e-4)
        for _ in range(WARM_UP):
            self._step(lambda: next(self._losses))

    def step(self) -> None:
        """Take one more step."""
        self._step(lambda: next(self._losses))


def narrow_dcgan(width: int, batch_size: int) -> Play:
    """Return a Wasserstein game of a DCGAN of a quarter of the width; ``width`` is not used."""
    torch.manual_seed(0)
    networks = dcgan.Generator(LATENT_SIZE, width=0.25), dcgan.Critic(width=0.25)
    return gan(*networks, batch_size, LATENT_SIZE)


def series(
    build: Callable[[int, int], Play], points: list[tuple[int, int, int]], rounds: int, what: str
) -> list[dict]:
    """Time ACGD with fixed iterations, and Adam, at points (width, batch size, iterations)."""
    timed = {
        (index, key): Timed(build(width, batch), num_iter if key == "acgd" else None)
        for key in ("acgd", "adam")
        for index, (width, batch, num_iter) in enumerate(points)
    }
    times = in_turns({name: one.step for name, one in timed.items()}, rounds, what=what)
    return [
        {
            "width": width,
            "batch_size": batch_size,
            "num_iter": num_iter,
            "num_parameters": timed[index, "acgd"].num_parameters,
            "acgd_s": statistics.median(times[index, "acgd"]),
            "adam_s": statistics.median(times[index, "adam"]),
        }
        for index, (width, batch_size, num_iter) in enumerate(points)
    ]


def exponent(sizes: list[float], times: list[float]) -> float:
    """Return the slope of log time against log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def draw(data: dict, path: Path) -> None:
    """Plot the three series."""
    labels = {"num_parameters": "parameters", "batch_size": "batch size", "num_iter": "iterations"}
    with picture(path, (12, 3.6), columns=3) as (_, axes):
        for axis, (key, rows) in zip(axes.flat, data["series"].items(), strict=True):
            x = [row[key] for row in rows]
            for name, column, color in (("ACGD", "acgd_s", "C1"), ("Adam", "adam_s", "0.5")):
                axis.plot(x, [1e3 * row[column] for row in rows], "o-", color=color, label=name)
            axis.set(xlabel=labels[key], ylabel="ms a step")
            if key == "num_iter":
                axis.set_ylim(bottom=0)
            else:
                axis.loglog()
                fits = data["exponents"][key]
                axis.set_title(
                    f"exponent {fits['acgd']:.2f} from {fits['from']:.2g} on", loc="left"
                )
            axis.legend()


def main(argv: list[str] | None = None) -> None:
    """Measure the three series; write a data file and a plot."""
    parser = arguments(__doc__, rounds=9)
    parser.add_argument("--points", type=int, help="how many sizes of each series, 4 or more")
    args = parser.parse_args(argv)
    first = slice(args.points)
    points = {
        "num_parameters": [(width, USUAL_BATCH, USUAL_ITERATIONS) for width in WIDTHS[first]],
        "batch_size": [(USUAL_WIDTH, batch, USUAL_ITERATIONS) for batch in BATCHES[first]],
        "num_iter": [(USUAL_WIDTH, USUAL_BATCH, num_iter) for num_iter in ITERATIONS[first]],
    }
    builds = {"batch_size": narrow_dcgan}
    rows = {
        key: series(builds.get(key, fully_connected), value, args.rounds, key)
        for key, value in points.items()
    }
    exponents = {}
    for key in ("num_parameters", "batch_size"):
        # Fit the larger sizes only: at small sizes the fixed cost of operations dominates.
        large = rows[key][len(rows[key]) // 2 :]
        exponents[key] = {
            "from": large[0][key],
            "acgd": exponent([row[key] for row in large], [row["acgd_s"] for row in large]),
            "adam": exponent([row[key] for row in large], [row["adam_s"] for row in large]),
        }
    data = {"series": rows, "exponents": exponents}
    write_result(args.out / "step_scaling.json", data)
    draw(data, args.out / "step_scaling.png")
    print(json.dumps(exponents, indent=1))


if __name__ == "__main__":
    main()
