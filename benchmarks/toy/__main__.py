"""Run the toy experiments; what has been run already is kept.

python -m benchmarks.toy [--out DIR] [--sizes 20 40 60] [--parts scalar covariance ...] [--quick]
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness import conditions
from benchmarks.toy import pictures
from benchmarks.toy.methods import CONSTANT, LARGER, MIXTURE, OTHERS, SCALAR
from benchmarks.toy.runs import covariance_run, mixture_run, scalar_run
from benchmarks.toy.statements import (
    Statement,
    covariance_statements,
    larger_statements,
    mixture_statements,
    scalar_statements,
    stochastic_statements,
)
from benchmarks.toy.store import Store
from compopt import games

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Scale:
    """How much is run.

    Attributes:
        alphas: strengths of the scalar games.
        rates: step sizes of the other experiments.
        budget: forward-pass equivalents of covariance estimation.
        draws: further covariances: of eight, those whose smallest singular value is largest.
        stochastic_budget: likewise from samples.
        samples: numbers of samples.
        seeds: runs of the GAN at each step size.
        gan_steps: steps of each.
    """

    alphas: tuple[int, ...] = (1, 3, 6)
    rates: tuple[float, ...] = (0.005, 0.025, 0.1, 0.4)
    budget: int = 100_000
    draws: tuple[int, ...] = (5, 6)
    stochastic_budget: int = 10_000
    samples: tuple[int, ...] = (100, 1000, 10_000)
    seeds: int = 3
    gan_steps: int = 300


QUICK = Scale(
    rates=(0.005, 0.4),
    budget=400,
    draws=(1,),
    stochastic_budget=200,
    samples=(50, 500),
    seeds=1,
    gan_steps=2,
)

GAMES = {
    "bilinear": games.bilinear,
    "convex": games.separable,
    "concave": lambda alpha: games.separable(-alpha),
}


def run_scalar(out: Path, scale: Scale, sizes: Sequence[int]) -> list[Statement]:
    """Run the scalar games with all optimizers."""
    cells = Store(out / "scalar.json").fill(
        "scalar games",
        (
            (f"{name} {alpha} {method.name}", partial(scalar_run, method, make(alpha)))
            for name, make in GAMES.items()
            for alpha in scale.alphas
            for method in SCALAR
        ),
    )
    said = list(scalar_statements(cells))
    names = [method.name for method in CONSTANT]
    pictures.trajectories(cells, names, scale.alphas, said, out / "trajectories.png")
    everyone = [method.name for method in SCALAR]
    pictures.divergence(cells, everyone, scale.alphas, out / "divergence.png")
    return said


def run_covariance(out: Path, scale: Scale, sizes: Sequence[int]) -> list[Statement]:
    """Run covariance estimation from the covariance itself."""
    store, said = Store(out / "covariance.json"), []
    ends = (min(scale.rates), max(scale.rates))
    for size in sizes:
        # A cell takes half a minute or more: what the paper has not is run at the ends alone.
        at_all, at_ends = (CONSTANT, OTHERS) if size == 20 else ((), LARGER)
        cells = store.fill(
            f"covariance, d = {size}",
            (
                (
                    f"d={size} exact {method.name} lr={lr:g}",
                    partial(covariance_run, method, lr, scale.budget, size, None),
                )
                for methods, rates in ((at_all, scale.rates), (at_ends, ends))
                for lr in rates
                for method in methods
            ),
        )
        own: list[Statement] = []
        if size == 20:
            draws = store.fill(
                "covariance, further draws",
                (
                    (
                        f"d=20 draw={draw} {method.name} lr={lr:g}",
                        partial(covariance_run, method, lr, scale.budget, size, None, draw),
                    )
                    for draw in scale.draws
                    for method, lr in zip(LARGER[:2], reversed(ends), strict=True)
                ),
            )
            own = list(covariance_statements(cells, size, scale.rates, draws))
        elif size == 60:
            own = list(larger_statements(cells, size, ends))
        names = [method.name for method in (*at_all, *at_ends)]
        file = out / f"covariance-{size}.png"
        rates = scale.rates if at_all else ends
        pictures.covariance(cells, [f"d={size} exact"], names, rates, own, file)
        said += own
    return said


def run_samples(out: Path, scale: Scale, sizes: Sequence[int]) -> list[Statement]:
    """Run covariance estimation from samples."""
    methods = [m for m in CONSTANT if m.name in ("CGD", "LCGD", "SGA", "ConOpt", "OGDA")]
    cells = Store(out / "samples.json").fill(
        "covariance from samples",
        (
            (
                f"d=20 n={count} {method.name} lr={lr:g}",
                partial(covariance_run, method, lr, scale.stochastic_budget, 20, count),
            )
            for count in scale.samples
            for lr in scale.rates
            for method in methods
        ),
    )
    said = list(stochastic_statements(cells, 20, scale.rates))
    rows = [f"d=20 n={count}" for count in scale.samples]
    names = [method.name for method in methods]
    pictures.covariance(cells, rows, names, scale.rates, said, out / "samples.png")
    return said


def run_mixture(out: Path, scale: Scale, sizes: Sequence[int]) -> list[Statement]:
    """Run the two-Gaussian GAN."""
    cells = Store(out / "mixture.json").fill(
        "two-Gaussian GAN",
        (
            (f"{m.name} lr={lr:g} seed={seed}", partial(mixture_run, m, lr, seed, scale.gan_steps))
            for seed in range(scale.seeds)
            for m in MIXTURE
            for lr in scale.rates
        ),
    )
    said = list(mixture_statements(cells))
    pictures.mixture(cells, [m.name for m in MIXTURE], scale.rates, said, out / "mixture.png")
    return said


PARTS: dict[str, Callable[[Path, Scale, Sequence[int]], list[Statement]]] = {
    "scalar": run_scalar,
    "covariance": run_covariance,
    "samples": run_samples,
    "mixture": run_mixture,
}


def main(argv: Sequence[str] | None = None) -> dict[str, list[dict[str, object]]]:
    """Run the experiments; return the statements by part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "toy")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[20, 40, 60], help="d of covariance"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="a few steps of each, as a test")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    scale = QUICK if args.quick else Scale()
    torch.set_num_threads(1)
    settings = Store(args.out / "settings.json")
    chosen = json.loads(json.dumps(vars(scale)))
    if settings.fill("settings", [("scale", lambda: chosen)])["scale"] != chosen:
        parser.error(f"{args.out} has results of other settings; give another --out.")
    settings.fill("conditions", [("conditions", lambda: dict(conditions()))])

    file = args.out / "statements.json"
    said = json.loads(file.read_text()) if file.exists() else {}
    table = Table("experiment", "published", "found", "", title="The paper's statements")
    for part in args.parts:
        said[part] = [s.row() for s in PARTS[part](args.out, scale, args.sizes)]
        for row in said[part]:
            verdict = "agree" if row["agrees"] else "[red]disagree[/red]"
            table.add_row(row["experiment"], row["published"], row["found"], verdict)
        file.write_text(json.dumps(said, indent=1) + "\n")
    Console().print(table)
    return said  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
