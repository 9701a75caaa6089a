"""Competitive gradient descent compared with gradient descent-ascent on ``alpha x y``.

One player minimises the product, the other maximises it; the solution is the origin. Each step of
descent-ascent multiplies the distance from it by ``sqrt(1 + (lr alpha)^2)``; each step of CGD
divides by it. A stronger interaction makes descent-ascent diverge and CGD converge faster.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from two_players import Optimizer, take_step, two_groups

from compopt import CGD

METHODS: dict[str, Callable[[Tensor, Tensor, float], Optimizer]] = {
    "CGD": lambda x, y, lr: CGD([x], [y], lr=lr),
    "GDA": lambda x, y, lr: torch.optim.SGD(two_groups([x], [y]), lr=lr),
}
START = torch.tensor([0.5, 0.5], dtype=torch.float64)


def play(method: str, alpha: float, lr: float = 0.2, steps: int = 50) -> Tensor:
    """Return the path of both players [steps + 1, 2]."""
    x, y = (value.clone().requires_grad_() for value in START)
    optimizer = METHODS[method](x, y, lr)
    path = [START]
    for _ in range(steps):
        take_step(optimizer, alpha * x * y)
        path.append(torch.stack([x, y]).detach())
    return torch.stack(path)


def results_table(paths: dict[tuple[str, float], Tensor], alphas: Sequence[float]) -> Table:
    """Return a table of final distances from the origin, a row per interaction."""
    table = Table("alpha", *METHODS, title="Distance from the solution")
    for alpha in alphas:
        ends = (f"{paths[method, alpha][-1].norm():.4g}" for method in METHODS)
        table.add_row(f"{alpha:g}", *ends)
    return table


def draw(paths: dict[tuple[str, float], Tensor], alphas: Sequence[float], file: Path) -> None:
    """Plot the paths near the origin, a panel per interaction."""
    figure = Figure(figsize=(3.6 * len(alphas), 3.8), layout="constrained")
    panels = figure.subplots(1, len(alphas), squeeze=False)[0]
    for panel, alpha in zip(panels, alphas, strict=True):
        for method, color in zip(METHODS, ("tab:blue", "tab:orange"), strict=True):
            x, y = paths[method, alpha].T
            panel.plot(x, y, ".-", color=color, label=method, markersize=4, linewidth=1)
        panel.plot(*START, "ko", label="start")
        panel.plot(0, 0, "k+", markersize=12, label="solution")
        panel.set(title=f"alpha = {alpha:g}", xlabel="x", ylabel="y", aspect="equal")
        # Descent-ascent leaves any window; this one shows its direction.
        panel.set(xlim=(-2, 2), ylim=(-2, 2))
    panels[0].legend(loc="lower right", fontsize="small")
    figure.savefig(file, dpi=150)


def main(argv: Sequence[str] | None = None) -> dict[tuple[str, float], Tensor]:
    """Run the example; return the paths by method and interaction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alphas", type=float, nargs="+", default=[1.0, 3.0, 6.0])
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("out/bilinear_game"))
    args = parser.parse_args(argv)

    games = [(method, alpha) for alpha in args.alphas for method in METHODS]
    paths = {game: play(*game, args.lr, args.steps) for game in track(games, "Play")}

    console = Console()
    console.print(results_table(paths, args.alphas))
    args.out.mkdir(parents=True, exist_ok=True)
    draw(paths, args.alphas, args.out / "paths.png")
    console.print(f"Wrote {args.out / 'paths.png'}")
    return paths


if __name__ == "__main__":
    main()
