"""Constrained minimisation with Lagrange multipliers as the opponent, compared with SLSQP.

The problem of Rosen and Suzuki has three inequalities c(x) <= 0, one of them inactive; its solution
is x = (0, 1, 2, -1), with the value -44 and the multipliers (1, 0, 2). In the game

    min over x, max over m > 0 of  f(x) + m . c(x)

the mirror map keeps the multipliers positive, so no step needs a projection.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from compopt import CGD

SOLUTION = torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64)
MULTIPLIERS = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)


def objective(x: Tensor) -> Tensor:
    """Return f(x)."""
    weights, slope = x.new_tensor([1, 1, 2, 1]), x.new_tensor([-5, -5, -21, 7])
    return weights @ x.square() + slope @ x


def constraints(x: Tensor) -> Tensor:
    """Return c(x) [3]."""
    squares = x.new_tensor([[1, 1, 1, 1], [1, 2, 1, 2], [2, 1, 1, 0]])
    slopes = x.new_tensor([[1, -1, 1, -1], [-1, 0, 0, -1], [2, -1, 0, -1]])
    return squares @ x.square() + slopes @ x - x.new_tensor([8, 10, 5])


def by_game(lr: float, steps: int) -> tuple[Tensor, Tensor, list[float]]:
    """Return x, its multipliers, and the distance of x from the solution at each step."""
    x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    multipliers = torch.ones(3, dtype=torch.float64, requires_grad=True)
    optimizer = CGD([x], [multipliers], lr=lr, mirror=("euclidean", "nonnegative"))
    distances = []
    for _ in track(range(steps), "CGD"):
        optimizer.step(objective(x) + multipliers @ constraints(x))
        distances.append(float((x.detach() - SOLUTION).norm()))
    return x.detach(), multipliers.detach(), distances


def by_scipy() -> Tensor:
    """Return x found by SciPy's sequential quadratic programming."""
    # Imported here so that `--help` is fast.
    from scipy.optimize import minimize

    bounds = {"type": "ineq", "fun": lambda x: -constraints(torch.from_numpy(x)).numpy()}
    result = minimize(
        lambda x: objective(torch.from_numpy(x)).item(),
        np.zeros(4),
        method="SLSQP",
        constraints=[bounds],
        options={"ftol": 1e-12},
    )
    return torch.from_numpy(result.x)


def main(argv: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Run the example; return the solutions of both, and the multipliers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("out/constrained"))
    args = parser.parse_args(argv)

    x, multipliers, distances = by_game(args.lr, args.steps)
    answers = {"CGD": x, "SLSQP": by_scipy(), "known": SOLUTION}
    table = Table("", "x", "f(x)", "largest c(x)", title=f"multipliers {multipliers.tolist()}")
    for name, answer in answers.items():
        row = (f"{v:.8f}" for v in (objective(answer), constraints(answer).max()))
        table.add_row(name, ", ".join(f"{v:.6f}" for v in answer), *row)
    Console().print(table)
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    panel = figure.subplots()
    panel.semilogy(distances)
    panel.set(
        xlabel="step", ylabel="distance from the solution", title="Rosen and Suzuki's problem"
    )
    args.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out / "distance.png", dpi=120)
    return {**answers, "multipliers": multipliers}


if __name__ == "__main__":
    main()
