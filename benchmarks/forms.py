"""Which form of a GAN's loss trains best: one zero-sum loss, or a loss for each player.

``python -m benchmarks.forms`` trains the same networks on a ring of eight Gaussians by ACGD, with
each loss in both forms and the same budget of gradient calls for every run, and writes
``benchmarks/results/forms.json``. A gradient call is an evaluation of the networks with its
backward pass; a mixed product counts as half a one, and a pair has a backward pass for each loss.
Runs are kept as soon as they are done: a program that was cut off goes on from there. ``--new``
begins anew.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

from benchmarks.harness import arguments, markdown_table, write_result
from compopt import ACGD, losses

RESULT = Path(__file__).parent / "results" / "forms.json"
LR = 2e-3
BUDGET = 3000

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
    """Networks, their data, and how samples are judged.

    Attributes:
        generator: of a batch of noise [n, noise_size].
        critic: of samples, with scores [n, 1].
        noise_size: length of a noise vector.
        batch_size: real samples, and generated ones, of a step.
        draw: returns that many real samples.
        score: returns figures of generated samples; the first is the one that counts.
    """

    generator: nn.Module
    critic: nn.Module
    noise_size: int
    batch_size: int
    draw: Callable[[int], Tensor]
    score: Callable[[Tensor], dict[str, float]]


def ring() -> Problem:
    """Return the ring of eight Gaussians of ``examples/gaussian_mixture_gan.py``."""
    modes, sigma = (
        torch.view_as_real(torch.polar(torch.ones(8), torch.arange(8) * torch.pi / 4)),
        0.05,
    )

    def network(*sizes: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for first, last in pairwise(sizes):
            linear = nn.Linear(first, last)
            nn.init.orthogonal_(linear.weight, gain=2**0.5)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.LeakyReLU(0.2)]
        return nn.Sequential(*layers[:-1])

    def draw(size: int) -> Tensor:
        return modes[torch.randint(8, (size,))] + sigma * torch.randn(size, 2)

    def score(samples: Tensor) -> dict[str, float]:
        distances, nearest = torch.cdist(samples, modes).min(dim=1)
        good = distances < 4 * sigma
        counts = nearest[good].bincount(minlength=8)
        return {
            "modes": int((counts >= len(samples) / 8 / 5).sum()),
            "good": round(float(good.float().mean()), 3),
        }

    return Problem(network(8, 64, 64, 2), network(2, 64, 64, 1), 8, 128, draw, score)


COLUMNS = ["mean", "good samples", "steps", "products"]
PROBLEMS: dict[str, Callable[[], Problem]] = {"ring": ring}
"""By name. Image sets are to be entries of their own."""


def trial(problem: str, loss: str, form: str, seed: int, budget: float) -> dict[str, Any]:
    """Train until the budget is spent; return the scores and what was spent."""
    # Networks this small are faster on one thread than on several.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    play = PROBLEMS[problem]()
    is_pair = form == "pair"
    optimizer = ACGD(play.generator.parameters(), play.critic.parameters(), lr=LR)
    calls, steps, products = 0.0, 0, 0
    while calls < budget:
        noise = torch.randn(play.batch_size, play.noise_size)
        real, fake = play.critic(play.draw(play.batch_size)), play.critic(play.generator(noise))
        optimizer.step(FORMS[loss, form](real, fake))
        calls += 1 + is_pair + optimizer.last_step.num_hvp / 2
        products += optimizer.last_step.num_hvp
        steps += 1
    with torch.no_grad():
        samples = play.generator(torch.randn(2000, play.noise_size))
    return {**play.score(samples), "steps": steps, "products": round(products / steps, 2)}


def table(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """Return modes by seed, and means, as a Markdown table."""
    rows = [
        [loss, form, *cells(found)] for loss, forms in runs.items() for form, found in forms.items()
    ]
    return markdown_table(["loss", "form", "modes found of 8, by seed", *COLUMNS], rows)


def cells(found: list[dict[str, Any]]) -> list[str]:
    """Return what a table says of the runs of one form."""
    means = {key: statistics.mean(run[key] for run in found) for key in found[0]}
    return [
        " ".join(str(run["modes"]) for run in found),
        f"{means['modes']:.1f}",
        f"{means['good']:.0%}",
        f"{means['steps']:.0f}",
        f"{means['products']:.1f}",
    ]


def main() -> None:
    """Run what has not been run yet, write the results and print the table."""
    parser = arguments(__doc__, out=RESULT)
    parser.add_argument("--problem", choices=PROBLEMS, default="ring")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=BUDGET, help="gradient calls of a run")
    parser.add_argument("--losses", nargs="+", choices=dict.fromkeys(name for name, _ in FORMS))
    parser.add_argument("--new", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {"problem": options.problem, "budget": options.budget, "runs": {}}
    if options.out.exists() and not options.new:
        stored = json.loads(options.out.read_text())
        if any(stored[key] != result[key] for key in ("problem", "budget")):
            parser.error(f"{options.out} has runs with other settings. Use --new or --out.")
        result = stored
    result.pop("conditions", None)
    for seed in track(range(options.seeds), "seeds"):
        for loss, form in FORMS:
            if options.losses and loss not in options.losses:
                continue
            found = result["runs"].setdefault(loss, {}).setdefault(form, [])
            if len(found) <= seed:
                found.append(trial(options.problem, loss, form, seed, options.budget))
                write_result(options.out, result, indent=None)
    print(table(result["runs"]))


if __name__ == "__main__":
    main()
