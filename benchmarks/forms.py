"""Compare two forms of a GAN's loss: one zero-sum loss, or a loss for each player.

``python -m benchmarks.forms`` trains the same networks by ACGD, with each loss in both forms and
the same budget of gradient calls for every run, on a ring of eight Gaussians or, with ``--problem
cifar16``, on CIFAR-10 at 16 pixels (``COMPOPT_DATA``), and writes
``benchmarks/results/forms_PROBLEM.json``. A gradient call is an evaluation of the networks with its
backward pass; a mixed product counts as half a call, and a pair has a backward pass for each loss.
Each run is stored when it is done, so an interrupted program resumes from there. ``--new`` starts
from scratch.
"""

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from benchmarks import plane
from benchmarks.harness import RESULTS, arguments, markdown_table, write_result
from benchmarks.networks import perceptron
from compopt import ACGD, GMRES, ConjugateGradient, losses

Form = Callable[[Tensor, Tensor], Any]
PAIRS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "non-saturating": losses.non_saturating,
    "hinge": losses.hinge,
    "least squares": losses.least_squares,
    "relativistic": losses.relativistic,
    "relativistic average": losses.relativistic_average,
}


def zero_sum_of(pair: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Form:
    return lambda real, fake: losses.zero_sum(pair(real, fake))


FORMS: dict[tuple[str, str], Form] = {("wasserstein", "zero-sum"): losses.wasserstein}
for _name, _pair in PAIRS.items():
    FORMS[_name, "zero-sum"] = zero_sum_of(_pair)
    FORMS[_name, "pair"] = _pair


@dataclass(frozen=True)
class Problem:
    """Networks, their data, and the score of samples.

    Attributes:
        generator: maps a batch of noise [n, noise_size] to samples.
        critic: maps samples to scores [n, 1].
        noise_size: length of a noise vector.
        batch_size: number of real and of generated samples in a step.
        draw: returns the given number of real samples.
        score: returns scores of the trained generator.
        lr: learning rate of both players.
        after_step: called without arguments after each step.
    """

    generator: nn.Module
    critic: nn.Module
    noise_size: int
    batch_size: int
    draw: Callable[[int], Tensor]
    score: Callable[[], dict[str, float | None]]
    lr: float
    after_step: Callable[[], object] = lambda: None


RTOL = 5e-2
"""Relative residual of both forms."""


def ring(seed: int) -> Problem:
    """Return the ring of eight Gaussians of ``examples/gaussian_mixture_gan.py``."""
    torch.manual_seed(seed)
    generator, critic = perceptron(8, 64, 64, 2), perceptron(2, 64, 64, 1)

    def score() -> dict[str, float | None]:
        found = plane.score("ring", generator(torch.randn(2000, 8)))
        return {"modes": found["found"], "good": found["good"]}

    return Problem(generator, critic, 8, 128, partial(plane.draw, "ring"), score, lr=2e-3)


@cache
def small_images() -> Any:
    """Return CIFAR-10 at 16 pixels and a judge for samples of it."""
    from benchmarks.cifar10.data import load_images
    from benchmarks.cifar10.judge import Judge

    images = load_images().resized(16)
    return images, Judge(images)


def cifar16(seed: int) -> Problem:
    """Return the networks, images, learning rate and distance of ``protocols/contrasts.yaml``."""
    from benchmarks.cifar10.averaging import ExponentialAverage, sample
    from benchmarks.cifar10.batches import Batches
    from benchmarks.cifar10.config import NetworkConfig
    from benchmarks.cifar10.errors import Diverged
    from benchmarks.cifar10.networks import build_networks

    images, judge = small_images()
    config = NetworkConfig(kind="dcgan16", width=0.5)
    generator, critic = build_networks(config, seed)
    average = ExponentialAverage(generator, decay=0.995)
    batches = Batches(images.train, batch_size=32, latent_size=config.latent_size, seed=seed)
    drawn = iter(range(len(images.train)))
    torch.manual_seed(seed)

    def score() -> dict[str, float | None]:
        try:
            samples = sample(average.module, 2000, seed=seed)
        except Diverged:
            return {"distance": None}
        distance = judge.scores(samples, ["fd_cifar10net_v1"])["metrics"]["fd_cifar10net_v1"]
        return {"distance": round(distance, 3)}

    return Problem(
        generator,
        critic,
        config.latent_size,
        32,
        lambda size: batches.draw(next(drawn)).real,
        score,
        lr=4e-4,
        after_step=lambda: average.update(generator),
    )


@dataclass(frozen=True)
class Setting:
    """A problem, the budget of its runs, and the columns of its table.

    Attributes:
        problem: returns the problem for a seed.
        budget: gradient calls of a run.
        seeds: number of runs of each form.
        losses: names of the losses to train with.
        heads: headers of the problem's own columns.
        cells: returns the texts of these columns for the runs of one form.
    """

    problem: Callable[[int], Problem]
    budget: float
    seeds: int
    losses: tuple[str, ...]
    heads: tuple[str, ...]
    cells: Callable[[list[dict[str, Any]]], Iterable[str]]


def ring_cells(found: list[dict[str, Any]]) -> Iterable[str]:
    yield " ".join(str(run["modes"]) for run in found)
    yield f"{statistics.mean(run['modes'] for run in found):.1f}"
    yield f"{statistics.mean(run['good'] for run in found):.0%}"


def distance_cells(found: list[dict[str, Any]]) -> Iterable[str]:
    distances = [run["distance"] for run in found]
    yield ", ".join("diverged" if one is None else f"{one:.2f}" for one in distances)
    yield "" if None in distances else f"{statistics.geometric_mean(distances):.2f}"


SETTINGS = {
    "ring": Setting(
        ring,
        3000,
        5,
        tuple(dict.fromkeys(name for name, _ in FORMS)),
        ("modes found of 8, by seed", "mean", "good samples"),
        ring_cells,
    ),
    "cifar16": Setting(
        cifar16,
        3000,
        3,
        ("non-saturating", "hinge", "least squares"),
        ("distance, by seed", "mean"),
        distance_cells,
    ),
}


def trial(problem: str, loss: str, form: str, seed: int, budget: float) -> dict[str, Any]:
    """Train until the budget is spent; return the scores and the cost."""
    # Networks this small are faster on one thread than on several.
    torch.set_num_threads(1)
    play = SETTINGS[problem].problem(seed)
    is_pair = form == "pair"
    solver = (GMRES if is_pair else ConjugateGradient)(rtol=RTOL)
    optimizer = ACGD(
        play.generator.parameters(), play.critic.parameters(), lr=play.lr, solver=solver
    )
    calls, steps, products = 0.0, 0, 0
    while calls < budget:
        noise = torch.randn(play.batch_size, play.noise_size)
        real, fake = play.critic(play.draw(play.batch_size)), play.critic(play.generator(noise))
        optimizer.step(FORMS[loss, form](real, fake))
        play.after_step()
        calls += 1 + is_pair + optimizer.last_step.num_hvp / 2
        products += optimizer.last_step.num_hvp
        steps += 1
    with torch.no_grad():
        scores = play.score()
    return {**scores, "steps": steps, "products": round(products / steps, 2)}


def result_file(problem: str) -> Path:
    """Return the file that stores the runs of a problem."""
    return RESULTS / f"forms_{problem}.json"


def table(problem: str, runs: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Return scores by seed, and means, as a Markdown table."""
    setting = SETTINGS[problem]
    rows = [
        [loss, form, *setting.cells(found), *costs(found)]
        for loss, forms in runs.items()
        for form, found in forms.items()
    ]
    return markdown_table(["loss", "form", *setting.heads, "steps", "products"], rows)


def costs(found: list[dict[str, Any]]) -> Iterable[str]:
    yield f"{statistics.mean(run['steps'] for run in found):.0f}"
    yield f"{statistics.mean(run['products'] for run in found):.1f}"


def main() -> None:
    """Do the missing runs, write the results and print the table."""
    parser = arguments(__doc__, out=None)
    parser.add_argument("--problem", choices=SETTINGS, default="ring")
    parser.add_argument("--seeds", type=int, help="runs of each form")
    parser.add_argument("--budget", type=float, help="gradient calls of a run")
    parser.add_argument("--losses", nargs="+", choices=SETTINGS["ring"].losses)
    parser.add_argument("--new", action="store_true", help="forget the runs that were kept")
    options = parser.parse_args()
    setting = SETTINGS[options.problem]
    out = options.out or result_file(options.problem)
    budget = options.budget or setting.budget
    result: dict[str, Any] = {"problem": options.problem, "budget": budget, "runs": {}}
    if out.exists() and not options.new:
        stored = json.loads(out.read_text())
        if any(stored[key] != result[key] for key in ("problem", "budget")):
            parser.error(f"{out} has runs with other settings. Use --new or --out.")
        result = stored
    result.pop("conditions", None)
    for seed in track(range(options.seeds or setting.seeds), "seeds"):
        for loss, form in FORMS:
            if loss not in (options.losses or setting.losses):
                continue
            found = result["runs"].setdefault(loss, {}).setdefault(form, [])
            if len(found) <= seed:
                found.append(trial(options.problem, loss, form, seed, budget))
                write_result(out, result, indent=None)
    print(table(options.problem, result["runs"]))


if __name__ == "__main__":
    main()
