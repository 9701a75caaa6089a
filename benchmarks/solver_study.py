"""What can save products of a solve: first guesses, recycled directions, tolerances.

Run ``python -m benchmarks.solver_study --data DIR``. A DCGAN of reduced width is trained on
CIFAR-10 by exactly solved ACGD steps. At each step the same system is also solved in other ways,
and their products counted; none of it needs a clock. How far two exact steps on two batches are
apart, from the same weights, is what errors of solving are to be compared with.
"""

import argparse
import copy
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from benchmarks.cifar10 import dcgan
from benchmarks.cifar10.data import load_images, to_float
from benchmarks.cifar10.losses import LOSSES
from benchmarks.environment import conditions
from benchmarks.step_cost import RESULTS
from compopt import ACGD, ConjugateGradient
from compopt.solvers import Solution, Solver

WIDTH, BATCH_SIZE, LATENT_SIZE = 0.25, 64, 128
TOLERANCES = (1e-1, 5e-2, 1e-2, 1e-6)
RANKS = (4, 16)


@dataclass
class Record:
    """What the other ways of solving took, by name.

    Attributes:
        products: with the mixed block.
        errors: of the solved player's move, relative to the exact one.
    """

    products: dict[str, list[int]] = field(default_factory=dict)
    errors: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, products: int, error: float) -> None:
        """Add one solve."""
        self.products.setdefault(name, []).append(products)
        self.errors.setdefault(name, []).append(error)


class Recycled:
    """A spectral preconditioner ``I + W (L^-1 - I) W^T`` from the Ritz pairs of earlier solves."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._vectors: Tensor | None = None
        self._values: Tensor | None = None

    def __call__(self, residual: Tensor) -> Tensor:
        """Return the preconditioned residual."""
        if self._vectors is None or self._values is None:
            return residual
        weights = (1 / self._values - 1) * (self._vectors.T @ residual)
        return residual + self._vectors @ weights

    def learn(self, directions: list[Tensor], images: list[Tensor]) -> None:
        """Take the leading Ritz pairs of ``directions`` and their products with the operator."""
        if not directions:
            return
        p, q = torch.stack(directions, 1).double(), torch.stack(images, 1).double()
        scale = p.norm(dim=0)
        p, q = p / scale, q / scale
        overlaps, basis = torch.linalg.eigh(p.T @ p)
        kept = overlaps > 1e-8
        basis = basis[:, kept] * overlaps[kept].rsqrt()
        values, rotation = torch.linalg.eigh(basis.T @ ((p.T @ q + q.T @ p) / 2) @ basis)
        self._vectors = (p @ basis @ rotation[:, -self.rank :]).float()
        self._values = values[-self.rank :].clamp(min=1).float()


def preconditioned(
    matvec: Callable[[Tensor], Tensor], rhs: Tensor, rtol: float, preconditioner: Recycled
) -> tuple[Tensor, int]:
    """Solve by preconditioned conjugate gradients; return the solution and the iterations."""
    x, r = torch.zeros_like(rhs), rhs.clone()
    z = preconditioner(r)
    p, rho, directions, images = z, torch.dot(r, z), [], []
    while torch.linalg.vector_norm(r) > rtol * torch.linalg.vector_norm(rhs) and len(images) < 99:
        q = matvec(p)
        directions.append(p)
        images.append(q)
        alpha = rho / torch.dot(p, q)
        x, r = x + alpha * p, r - alpha * q
        z = preconditioner(r)
        rho, before = torch.dot(r, z), rho
        p = z + rho / before * p
    preconditioner.learn(directions, images)
    return x, len(images)


class Study(Solver):
    """Solves exactly, and each system in the other ways besides."""

    def __init__(self) -> None:
        self.record = Record()
        self._exact = ConjugateGradient(rtol=1e-6, max_iter=200, check_last=True)
        self._moves: list[Tensor] = []
        self._recycled = {(t, r): Recycled(r) for t in TOLERANCES for r in RANKS}

    def solve(
        self,
        operator,
        rhs,
        x0=None,
        *,
        coupled_rhs=None,
        coupled_start=None,
        overwrite_rhs=False,
    ) -> Solution:
        """Return the exact solution; note what the others took."""
        exact = self._exact.solve(operator, rhs, coupled_rhs=coupled_rhs)
        solution = Solution(
            exact.value.clone(),
            exact.coupled_value.clone(),
            exact.num_iter,
            exact.residual_norm,
            exact.rhs_norm,
            exact.status_code,
        )
        guesses = {"cold": None}
        if len(self._moves) > 1:
            last, before = self._moves[-1], self._moves[-2]
            guesses["last move"] = last / operator.scale
            guesses["extrapolated"] = (2 * last - before) / operator.scale
        reduced = rhs - operator.factor(operator.weigh(coupled_rhs))
        for rtol in TOLERANCES:
            for name, guess in guesses.items():
                for checked in (True, False):
                    solver = ConjugateGradient(rtol=rtol, max_iter=200, check_last=checked)
                    before_products = operator.mixed.num_products
                    found = solver.solve(operator, rhs, guess, coupled_rhs=coupled_rhs)
                    how = f"{name}, last residual {'computed' if checked else 'predicted'}"
                    products = operator.mixed.num_products - before_products
                    self._note(f"{rtol:g} | {how}", products, found.value, solution.value)
            for rank in RANKS:
                recycled = self._recycled[rtol, rank]
                value, num_iter = preconditioned(operator.matvec, reduced, rtol, recycled)
                name = f"{rtol:g} | {rank} Ritz vectors recycled"
                self._note(name, 1 + 2 * num_iter, value, solution.value)
        self._moves.append(operator.scale * solution.value)
        return solution

    def _note(self, name: str, products: int, value: Tensor, exact: Tensor) -> None:
        error = torch.linalg.vector_norm(value - exact) / torch.linalg.vector_norm(exact)
        self.record.add(name, products, float(error))


def batches(images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield real images [n, 3, 32, 32] in (-1, 1) and noise."""
    random = torch.Generator().manual_seed(1)
    while True:
        index = torch.randint(len(images), (BATCH_SIZE,), generator=random)
        yield to_float(images[index]), torch.randn(BATCH_SIZE, LATENT_SIZE, generator=random)


def other_step(players: tuple[nn.Module, nn.Module], state: dict, loss: Tensor) -> Tensor:
    """Return the exact step on ``loss``, in parameters, without taking it."""
    params = [list(player.parameters()) for player in players]
    before = [param.detach().clone() for own in params for param in own]
    exact = ACGD(*params, solver=ConjugateGradient(rtol=1e-6, max_iter=200, check_last=True))
    exact.load_state_dict(state)
    exact.step(loss)
    moves = []
    with torch.no_grad():
        for param, old in zip([param for own in params for param in own], before, strict=True):
            moves.append((param - old).flatten())
            param.copy_(old)
    return torch.cat(moves)


def study(images: Tensor, loss: str, lr: float, steps: int) -> dict[str, dict[str, float]]:
    """Train, and return mean products and median error by way of solving."""
    torch.manual_seed(0)
    players: tuple[nn.Module, nn.Module] = (
        dcgan.Generator(LATENT_SIZE, width=WIDTH),
        dcgan.Critic(width=WIDTH),
    )
    generator, critic = players
    solver = Study()
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr, solver=solver)
    draws = batches(images)
    record = solver.record

    def value() -> Tensor:
        real, noise = next(draws)
        result: Tensor = LOSSES[loss].value(critic(real), critic(generator(noise)))
        return result

    for _ in track(range(steps), description=f"{loss}, lr {lr:g}"):
        state = copy.deepcopy(optimizer.state_dict())
        one, other = (other_step(players, state, value()) for _ in range(2))
        apart = torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(one)
        record.add("exact | step on another batch", 0, float(apart))
        optimizer.step(value())
    return {
        name: {
            "mean_products": statistics.mean(record.products[name]),
            "median_error": statistics.median(record.errors[name]),
        }
        for name in record.products
    }


def table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    """Return the figures of one setting as a table."""
    result = Table("rtol", "way of solving", "products a step", "error of the move", title=title)
    for name, row in rows.items():
        rtol, how = name.split(" | ")
        result.add_row(rtol, how, f"{row['mean_products']:.1f}", f"{row['median_error']:.1e}")
    return result


def main(argv: list[str] | None = None) -> None:
    """Run the study for two losses and two learning rates; write a data file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)
    images = load_images(args.data)
    data: dict[str, object] = {"conditions": conditions(), "data": images.describe()}
    settings: dict[str, dict] = {}
    data |= {"steps": args.steps, "width": WIDTH, "batch_size": BATCH_SIZE, "settings": settings}
    args.out.mkdir(parents=True, exist_ok=True)
    for loss in ("wgan", "bce"):
        for lr in (1e-4, 1e-3):
            rows = study(images.train, loss, lr, args.steps)
            settings[f"{loss}, lr {lr:g}"] = rows
            Console().print(table(f"{loss}, lr {lr:g}", rows))
            # What is done is kept if the rest is not.
            (args.out / "solver_study.json").write_text(json.dumps(data, indent=1) + "\n")
    print(f"Written to {args.out}: solver_study.json")


if __name__ == "__main__":
    main()
