"""Constrained problems with multipliers as the max player, compared with Cooper and solutions.

``python -m benchmarks.constraints`` prints the stored comparison; ``--new`` runs it again, which
takes minutes and needs ``cooper-optim``. There are two problems: one of two variables from Cooper's
tests, with the solution (2/3, 1/3), and a logistic regression whose acceptance rates in two groups
may differ by at most 0.05, solved by SciPy. Each method takes the same number of steps and tries
the same learning rates.
"""

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from compopt import CGD

RESULT = Path(__file__).parent / "results" / "constraints.json"
RATES = (0.1, 0.5)
START = 0.1
GAP = 0.05
# Price of a violation, larger than all multipliers of the solutions, so that no violation pays.
PRICE = 2.0
COURSE = (10, 30, 50, 70, 100, 150, 300, 1000)
Run = Callable[["Problem", float, float, int], tuple[Tensor, Tensor]]


class Problem(NamedTuple):
    """Minimise ``loss`` subject to ``constraints`` [2] <= 0."""

    size: int
    loss: Callable[[Tensor], Tensor]
    constraints: Callable[[Tensor], Tensor]


def by_hand() -> Problem:
    """Return the problem of Cooper's tests: x^2 + 2 y^2, x + y >= 1, x^2 + y <= 1."""
    return Problem(
        2,
        lambda x: x[0].square() + 2 * x[1].square(),
        lambda x: torch.stack([1 - x.sum(), x[0].square() + x[1] - 1]),
    )


def fairness(samples: int = 400) -> Problem:
    """Return a logistic regression whose mean acceptance in two groups must be nearly equal."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    group = features[:, 0] > 0.3
    labels = (features.sum(1) + 0.5 * torch.randn(samples, generator=generator) > 0).double()

    def scores(weights: Tensor) -> Tensor:
        return features @ weights[:3] + weights[3]

    def gap(weights: Tensor) -> Tensor:
        accepted = scores(weights).sigmoid()
        return accepted[group].mean() - accepted[~group].mean()

    return Problem(
        4,
        lambda weights: cross_entropy(scores(weights), labels),
        lambda weights: torch.stack([gap(weights) - GAP, -gap(weights) - GAP]),
    )


PROBLEMS = {"two variables": by_hand, "fairness": fairness}


def mirrored(problem: Problem, lr: float, dual_lr: float, steps: int) -> tuple[Tensor, Tensor]:
    """Run CGD with a mirror map that keeps the multipliers positive."""
    x = torch.zeros(problem.size, dtype=torch.float64, requires_grad=True)
    multipliers = torch.full((2,), START, dtype=torch.float64, requires_grad=True)
    optimizer = CGD([x], [multipliers], lr=(lr, dual_lr), mirror=("euclidean", "nonnegative"))
    for _ in range(steps):
        optimizer.step(problem.loss(x) + multipliers @ problem.constraints(x))
    return x.detach(), multipliers.detach()


def clamped(problem: Problem, lr: float, dual_lr: float, steps: int) -> tuple[Tensor, Tensor]:
    """Run CGD and clamp the multipliers at zero after each step."""
    x = torch.zeros(problem.size, dtype=torch.float64, requires_grad=True)
    multipliers = torch.full((2,), START, dtype=torch.float64, requires_grad=True)
    optimizer = CGD([x], [multipliers], lr=(lr, dual_lr))
    for _ in range(steps):
        optimizer.step(problem.loss(x) + multipliers @ problem.constraints(x))
        with torch.no_grad():
            multipliers.clamp_(min=0)
    return x.detach(), multipliers.detach()


def cooper(problem: Problem, lr: float, dual_lr: float, steps: int) -> tuple[Tensor, Tensor]:
    """Run Cooper: gradient descent on the variables, projected ascent on the multipliers."""
    import cooper as package

    class Cmp(package.ConstrainedMinimizationProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            start = torch.full((2,), START, dtype=torch.float64)
            self.multiplier = package.multipliers.DenseMultiplier(init=start).double()
            self.constraint = package.Constraint(
                constraint_type=package.ConstraintType.INEQUALITY,
                multiplier=self.multiplier,
                formulation_type=package.formulations.Lagrangian,
            )

        def compute_cmp_state(self) -> Any:
            state = package.ConstraintState(violation=problem.constraints(x))
            observed = {self.constraint: state}
            return package.CMPState(loss=problem.loss(x), observed_constraints=observed)

    x = torch.zeros(problem.size, dtype=torch.float64, requires_grad=True)
    cmp = Cmp()
    optimizer = package.optim.SimultaneousOptimizer(
        cmp=cmp,
        primal_optimizers=torch.optim.SGD([x], lr=lr),
        dual_optimizers=torch.optim.SGD(cmp.dual_parameters(), lr=dual_lr, maximize=True),
    )
    for _ in range(steps):
        optimizer.roll()
    return x.detach(), cmp.multiplier.weight.detach()


METHODS: dict[str, Run] = {
    "CGD, mirrored multipliers": mirrored,
    "CGD, clamped multipliers": clamped,
    "Cooper, simultaneous": cooper,
}


def solution(problem: Problem) -> Tensor:
    """Return the minimiser, computed by sequential quadratic programming."""
    found = minimize(
        lambda x: problem.loss(torch.from_numpy(x)).item(),
        np.full(problem.size, 0.1),
        constraints={
            "type": "ineq",
            "fun": lambda x: -problem.constraints(torch.from_numpy(x)).numpy(),
        },
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    return torch.from_numpy(found.x)


def compare(lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each problem, number of steps and method, with its best learning rates."""
    rows = []
    for name, make in PROBLEMS.items():
        problem = make()
        best = float(problem.loss(solution(problem)))
        for (method, run), steps in itertools.product(METHODS.items(), lengths):
            tried = []
            for lr, dual_lr in itertools.product(RATES, repeat=2):
                x, multipliers = run(problem, lr, dual_lr, steps)
                excess = float(problem.loss(x)) - best
                violation = max(0.0, float(problem.constraints(x).max()))
                figures = {"excess": excess, "violation": violation, "lr": [lr, dual_lr]}
                tried.append({**figures, "multipliers": multipliers.tolist()})
            chosen = min(tried, key=lambda row: row["excess"] + PRICE * row["violation"])
            rows.append({"problem": name, "method": method, "steps": steps, **chosen})
    return rows


def course() -> list[dict[str, Any]]:
    """Return the progress of mirrored multipliers on the fair regression after some steps."""
    problem, rows = fairness(), []
    best = float(problem.loss(solution(problem)))
    for step in COURSE:
        x, multipliers = mirrored(problem, RATES[-1], RATES[-1], step)
        figures = {"excess": float(problem.loss(x)) - best, "multiplier": float(multipliers[0])}
        rows.append({"step": step, "constraint": float(problem.constraints(x)[0]), **figures})
    return rows


def course_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the course as a table."""
    lines = ["| step | loss above the minimum | constraint | multiplier |", "|---|---|---|---|"]
    for row in rows:
        figures = f"{row['excess']:+.1e} | {row['constraint']:+.1e} | {row['multiplier']:.3f}"
        lines.append(f"| {row['step']} | {figures} |")
    return "\n".join(lines)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the comparison as a table."""
    lines = ["| problem | method | steps | loss above the minimum | violation | rates |"]
    lines.append("|---" * 6 + "|")
    for row in rows:
        figures = f"{row['excess']:+.1e} | {row['violation']:.1e}"
        rates = ", ".join(map(str, row["lr"]))
        named = f"{row['problem']} | {row['method']} | {row['steps']}"
        lines.append(f"| {named} | {figures} | {rates} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the stored comparison; run it first with ``--new``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--new", action="store_true", help="run and store instead of reading")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 1000], help="with --new")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args(argv)
    if args.new:
        found = {"rows": compare(args.steps), "course": course()}
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    stored = json.loads(args.out.read_text())
    print(table(stored["rows"]), course_table(stored["course"]), sep="\n\n")


if __name__ == "__main__":
    main()
