"""Adversarially robust regression: a linear model against an opponent that moves the data.

scikit-learn's diabetes data. Plain least squares fits the given features. The robust model plays
against an opponent that may shift each feature of each patient by up to ``eps`` standard
deviations, like a measurement error,

    min over the model, max over shifts in [-eps, eps] of  mean ((x + shift) . model - y)^2,

and a mirror map keeps the shifts in their box. Both models are tested on other patients under the
worst shifts, which are known for a linear model: they add ``eps |model|_1`` to each residual.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from compopt import CGD

SHIFTS = torch.linspace(0, 0.5, 11)
Data = tuple[Tensor, Tensor]


def split(seed: int) -> tuple[Data, Data]:
    """Return standardized features [n, 10] and targets [n], for training and for testing."""
    from sklearn.datasets import load_diabetes  # takes seconds, which `--help` need not wait for

    x, y = (torch.tensor(part).float() for part in load_diabetes(return_X_y=True))
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    first, second = order.chunk(2)
    return (x[first], y[first]), (x[second], y[second])


def robust(data: Data, eps: float, steps: int) -> Tensor:
    """Return the model trained against the shifts."""
    x, y = data
    model = torch.zeros(x.shape[1], requires_grad=True)
    shift = torch.zeros_like(x).requires_grad_()
    # The loss is a mean over patients, so the gradient by one patient's shifts is small.
    rates = (0.02, float(len(x)))
    optimizer = CGD([model], [shift], lr=rates, mirror=("euclidean", ("box", -eps, eps)))
    for _ in range(steps):
        optimizer.step((((x + shift) @ model - y) ** 2).mean())
    return model.detach()


def worst_errors(model: Tensor, data: Data) -> Tensor:
    """Return the mean squared error under the worst shifts, for each size of SHIFTS."""
    residual = (data[0] @ model - data[1]).abs()
    return (residual + SHIFTS[:, None] * model.abs().sum()).square().mean(1)


def report(errors: dict[str, Tensor], eps: float, folder: Path) -> None:
    """Print, write and plot the errors [splits, shifts] of each model."""
    table = Table("model", *(f"shifts of {size:.1f}" for size in SHIFTS[::2]))
    for name, rows in errors.items():
        table.add_row(name, *(f"{error:.3f}" for error in rows.mean(0)[::2]))
    Console().print(table)
    folder.mkdir(parents=True, exist_ok=True)
    data = {name: rows.tolist() for name, rows in {"shifts": SHIFTS, **errors}.items()}
    (folder / "errors.json").write_text(json.dumps(data) + "\n")
    panel = (figure := Figure(figsize=(5, 3.4), layout="constrained")).subplots()
    for name, rows in errors.items():
        panel.plot(SHIFTS.tolist(), rows.mean(0).tolist(), ".-", label=name)
    panel.axvline(eps, color="k", ls=":", lw=1)
    panel.set(xlabel="largest shift (dotted: in training)", ylabel="error under the worst shift")
    panel.legend(title="mean over splits")
    figure.savefig(folder / "errors.png", dpi=120)


def main(argv: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Run the example; return the test errors [splits, shifts] of both models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--eps", type=float, default=0.2)
    parser.add_argument("--out", type=Path, default=Path("out/robust_regression"))
    args = parser.parse_args(argv)
    errors: dict[str, list[Tensor]] = {"plain": [], "robust": []}
    for seed in track(range(args.splits), "splits"):
        train, test = split(seed)
        plain = torch.linalg.lstsq(train[0], train[1].unsqueeze(1)).solution.squeeze(1)
        errors["plain"].append(worst_errors(plain, test))
        errors["robust"].append(worst_errors(robust(train, args.eps, args.steps), test))
    result = {name: torch.stack(rows) for name, rows in errors.items()}
    report(result, args.eps, args.out)
    return result


if __name__ == "__main__":
    main()
