"""Compare solver tolerances of ACGD at the same cost of training.

``python -m benchmarks.tolerances`` trains GANs on a ring of eight Gaussians and on 8x8 digits, with
both zero-sum losses, and plays bilinear games, each by ACGD with one iteration and with several
tolerances, and writes ``benchmarks/results/tolerances.json``. Every run has the same budget of
gradient calls; a mixed product counts as half a call. Each run is stored when it is done, so an
interrupted program resumes from there. CIFAR-10 has its own command (``benchmarks.cifar10``).
"""

import json
import statistics
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from benchmarks import plane
from benchmarks.harness import RESULTS, arguments, markdown_table, read_result, write_result
from benchmarks.networks import perceptron
from compopt import ACGD, ConjugateGradient, losses

RESULT = RESULTS / "tolerances.json"
BUDGET, SEEDS = 3000.0, 5
SOLVERS: dict[str, ConjugateGradient] = {
    "one iteration": ConjugateGradient(rtol=0.0, max_iter=1),
    "0.6": ConjugateGradient(rtol=0.6),
    "0.3": ConjugateGradient(rtol=0.3),
    "0.1": ConjugateGradient(rtol=0.1),
    "0.05": ConjugateGradient(rtol=0.05),
    "0.01": ConjugateGradient(rtol=0.01),
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


def gan(kind: str, loss: str, solver: ConjugateGradient, seed: int, budget: float) -> Any:
    """Train a GAN until the budget is spent; return its score, lower is better."""
    torch.manual_seed(seed)
    width, entries, draw, score = GANS[kind]
    generator, critic = (
        perceptron(NOISE, width, width, entries),
        perceptron(entries, width, width, 1),
    )
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=LR, solver=solver)

    def value() -> Tensor:
        noise = torch.randn(BATCH, NOISE)
        real, fake = critic(draw(BATCH)), critic(generator(noise))
        return LOSSES[loss](real, fake)

    spent = _play(optimizer, value, budget)
    with torch.no_grad():
        samples = generator(torch.randn(2000, NOISE))
    return {"score": round(score(samples), 3), **spent}


def bilinear(lr: float, solver: ConjugateGradient, seed: int, budget: float) -> Any:
    """Play ``x'A y`` with a random A [20, 20]; return the final distance from 0 over the initial.

    Step sizes adapt to the size of A, so that the learning rate is the interaction strength.
    """
    random = torch.Generator().manual_seed(seed)
    matrix = torch.randn(20, 20, generator=random, dtype=torch.float64)
    x, y = (
        torch.randn(20, generator=random, dtype=torch.float64).requires_grad_() for _ in range(2)
    )
    start = torch.cat([x, y]).norm().item()
    optimizer = ACGD([x], [y], lr=lr, solver=solver)
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


def runs() -> Iterator[tuple[str, str, Callable[[int, float], Any]]]:
    """Yield problem, solver, and the function from a seed and a budget to the result."""
    for (name, solver), kind, loss in product(SOLVERS.items(), GANS, LOSSES):
        yield (
            f"{kind}, {loss}",
            name,
            lambda seed, budget, a=(kind, loss, solver): gan(*a, seed, budget),
        )
    for (name, solver), lr in product(SOLVERS.items(), (0.01, 0.1, 1.0)):
        yield (
            f"bilinear, lr {lr:g}",
            name,
            lambda seed, budget, a=(lr, solver): bilinear(*a, seed, budget),
        )


def table(results: dict[str, Any]) -> str:
    """Return the mean score of each problem and solver, its range over seeds, and products."""
    rows = []
    for problem, by_solver in results.items():
        cells = []
        for name in SOLVERS:
            found = by_solver[name]
            scores = [run["score"] for run in found]
            mean = statistics.mean(scores)
            ends = f"{min(scores):.2g} to {max(scores):.2g}"
            cells.append(
                f"{mean:.2g} ({ends}; {statistics.mean(r['products'] for r in found):.1f})"
            )
        rows.append([problem, *cells])
    return markdown_table(["problem", *SOLVERS], rows)


def main() -> None:
    """Do the missing runs, write the results and print the table."""
    parser = arguments(__doc__, out=RESULT)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--budget", type=float, default=BUDGET, help="gradient calls of a run")
    options = parser.parse_args()
    result = read_result(options.out, {"budget": options.budget, "runs": {}})
    if result["budget"] != options.budget:
        parser.error(f"{options.out} has runs with another budget. Use --out.")
    result.pop("conditions", None)
    for seed in track(range(options.seeds), "seeds"):
        for problem, name, make in runs():
            found = result["runs"].setdefault(problem, {}).setdefault(name, [])
            if len(found) <= seed:
                found.append(make(seed, options.budget))
                write_result(options.out, result, indent=None)
    print(table(json.loads(options.out.read_text())["runs"]))


if __name__ == "__main__":
    main()
