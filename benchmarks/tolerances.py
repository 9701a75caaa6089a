"""Compare solver tolerances of ACGD at the same cost of training.

``python -m benchmarks.tolerances`` trains GANs on a ring of eight Gaussians and on 8x8 digits, with
both zero-sum losses, and plays bilinear games, each by ACGD with one iteration and with several
tolerances, and writes ``benchmarks/results/tolerances.json``. Every run has the same budget of
gradient calls; a mixed product counts as half a call. Each run is stored when it is done, so an
interrupted program resumes from there. CIFAR-10 has its own command (``benchmarks.cifar10``).
"""

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import torch
from rich.progress import track
from torch import Tensor

from benchmarks import plane
from benchmarks.harness import RESULTS, arguments, markdown_table, read_result, write_result
from benchmarks.networks import perceptron
from compopt import ACGD, ConjugateGradient, losses

RESULT = RESULTS / "tolerances.json"
BUDGET, SEEDS = 3000.0, 5
RTOLS = (0.6, 0.3, 0.1, 0.05, 0.01)
Ways: TypeAlias = dict[str, dict[str, Any]]
"""Keywords of ACGD by the name of what is compared."""

SOLVERS: Ways = {
    "one iteration": {"solver": ConjugateGradient(rtol=0.0, max_iter=1)},
    **{f"{rtol:g}": {"solver": ConjugateGradient(rtol=rtol)} for rtol in RTOLS},
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Wasserstein": losses.wasserstein,
    "cross entropy": losses.minimax,
}
LR, BATCH, NOISE = 2e-3, 128, 8


@cache
def digit_images() -> Tensor:
    """Return the 8x8 digits [1797, 64], pixels from -1 to 1."""
    from sklearn.datasets import load_digits

    return torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1


def digit_samples(size: int) -> Tensor:
    """Return digits [size, 64]."""
    return digit_images()[torch.randint(len(digit_images()), (size,))]


def ring_score(samples: Tensor) -> float:
    """Return one minus the share of good samples times the share of modes found."""
    found = plane.score("ring", samples)
    return 1 - found["good"] * found["found"] / 8


def digits_score(samples: Tensor) -> float:
    """Return the Frechet distance of the pixels, which measures both quality and variety."""
    return frechet(samples, digit_images())


# By name: width of hidden layers, entries of a sample, function for real samples, and score.
GANS: dict[str, tuple[int, int, Callable[[int], Tensor], Callable[[Tensor], float]]] = {
    "ring": (64, 2, partial(plane.draw, "ring"), ring_score),
    "digits": (128, 64, digit_samples, digits_score),
}


def frechet(one: Tensor, other: Tensor) -> float:
    """Return the Frechet distance of Gaussians fitted to two sets of samples [n, d]."""
    means = [samples.double().mean(0) for samples in (one, other)]
    covariances = [samples.double().T.cov() for samples in (one, other)]
    # The trace of the root of A B is the sum of the roots of its eigenvalues, which are real.
    values = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0)
    traces = sum(covariance.trace() for covariance in covariances) - 2 * values.sqrt().sum()
    return float((means[0] - means[1]).square().sum() + traces)


def gan(kind: str, loss: str, options: Mapping[str, Any], seed: int, budget: float) -> Any:
    """Train a GAN until the budget is spent; return its score, lower is better."""
    torch.manual_seed(seed)
    width, entries, draw, score = GANS[kind]
    generator, critic = (
        perceptron(NOISE, width, width, entries),
        perceptron(entries, width, width, 1),
    )
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=LR, **options)

    def value() -> Tensor:
        noise = torch.randn(BATCH, NOISE)
        real, fake = critic(draw(BATCH)), critic(generator(noise))
        return LOSSES[loss](real, fake)

    spent = _play(optimizer, value, budget)
    with torch.no_grad():
        samples = generator(torch.randn(2000, NOISE))
    return {"score": round(score(samples), 3), **spent}


def bilinear(lr: float, options: Mapping[str, Any], seed: int, budget: float) -> Any:
    """Play ``x'A y`` with a random A [20, 20]; return the final distance from 0 over the initial.

    Step sizes adapt to the size of A, so that the learning rate is the interaction strength.
    """
    random = torch.Generator().manual_seed(seed)
    matrix = torch.randn(20, 20, generator=random, dtype=torch.float64)
    x, y = (
        torch.randn(20, generator=random, dtype=torch.float64).requires_grad_() for _ in range(2)
    )
    start = torch.cat([x, y]).norm().item()
    optimizer = ACGD([x], [y], lr=lr, **options)
    spent = _play(optimizer, lambda: x @ matrix @ y, budget)
    return {"score": float(f"{torch.cat([x, y]).norm().item() / start:.3g}"), **spent}


def _play(optimizer: ACGD, loss: Callable[[], Tensor], budget: float) -> dict[str, float]:
    torch.set_num_threads(1)
    calls, steps, products = 0.0, 0, 0
    while calls < budget:
        optimizer.step(loss())
        calls += 1 + optimizer.last_step.num_hvp / 2
        products += optimizer.last_step.num_hvp
        steps += 1
    return {"steps": steps, "products": round(products / steps, 2)}


Make: TypeAlias = Callable[[int, float], Any]
"""Makes the result of a run from its seed and its budget."""


def gans(ways: Ways) -> Iterator[tuple[str, str, Make]]:
    """Yield problem, way, and what makes its result, of all GANs."""
    for (way, options), kind, loss in product(ways.items(), GANS, LOSSES):
        yield f"{kind}, {loss}", way, partial(gan, kind, loss, options)


def runs() -> Iterator[tuple[str, str, Make]]:
    """Yield problem, solver, and what makes its result."""
    yield from gans(SOLVERS)
    for (way, options), lr in product(SOLVERS.items(), (0.01, 0.1, 1.0)):
        yield f"bilinear, lr {lr:g}", way, partial(bilinear, lr, options)


def table(results: dict[str, Any], ways: Iterable[str] = SOLVERS) -> str:
    """Return the mean score of each problem and way, its range over seeds, and products."""
    rows = []
    for problem, by_way in results.items():
        cells = []
        for way in ways:
            found = by_way[way]
            scores = [run["score"] for run in found]
            mean = statistics.mean(scores)
            ends = f"{min(scores):.2g} to {max(scores):.2g}"
            products = statistics.mean(run["products"] for run in found)
            cells.append(f"{mean:.2g} ({ends}; {products:.1f})")
        rows.append([problem, *cells])
    return markdown_table(["problem", *ways], rows)


def collect(
    description: str | None,
    out: Path,
    runs: Callable[[], Iterable[tuple[str, str, Make]]],
    ways: Iterable[str],
    seeds: int = SEEDS,
) -> None:
    """Do the missing runs, write the results and print the table.

    Args:
        description: of the command.
        out: where results are written, unless an argument of the command says otherwise.
        runs: yields problem, way, and what makes its result.
        ways: columns of the table.
        seeds: how many there are, unless an argument of the command says otherwise.
    """
    parser = arguments(description, out=out)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--budget", type=float, default=BUDGET, help="gradient calls of a run")
    options = parser.parse_args()
    result = read_result(options.out, {"budget": options.budget, "runs": {}})
    if result["budget"] != options.budget:
        parser.error(f"{options.out} has runs with another budget. Use --out.")
    result.pop("conditions", None)
    for seed in track(range(options.seeds), "seeds"):
        for problem, way, make in runs():
            found = result["runs"].setdefault(problem, {}).setdefault(way, [])
            if len(found) <= seed:
                found.append(make(seed, options.budget))
                write_result(options.out, result, indent=None)
    print(table(json.loads(options.out.read_text())["runs"], ways))


if __name__ == "__main__":
    collect(__doc__, RESULT, runs, SOLVERS)
