"""Ways to take a competitive step with fewer products, each tried on the same systems."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from compopt import ConjugateGradient
from compopt.derivatives import Derivatives
from compopt.operators import TwoPlayerOperator
from compopt.solvers import Solution, Solver, solve_coupled

TOLERANCES = (1e-1, 5e-2, 1e-2)
# Only solves at these tolerances take enough iterations for their directions to be reused.
RECYCLED_TOLERANCES = (1e-2, 1e-6)
RANKS = (4, 16)
# Eisenstat and Walker (1996), choice 2, with their constants, and bounds.
FORCING_FACTOR, FORCING_POWER, FORCING_BOUNDS = 0.9, (1 + 5**0.5) / 2, (1e-2, 0.5)
MAX_ITER = 200


@dataclass
class Record:
    """Cost and error of the ways of solving, by name.

    Attributes:
        products: number of products with the mixed block.
        errors: errors of the solved player's move, relative to the exact one.
        figures: other numbers, by name.
    """

    products: dict[str, list[int]] = field(default_factory=dict)
    errors: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, products: int, error: float) -> None:
        """Add one solve."""
        self.products.setdefault(name, []).append(products)
        self.errors.setdefault(name, []).append(error)

    def note(self, name: str, figure: float) -> None:
        """Add one number."""
        self.figures.setdefault(name, []).append(figure)


class Preconditioner(Protocol):
    """Approximates the inverse of the operator from products of earlier solves."""

    def __call__(self, residual: Tensor) -> Tensor:
        """Return the preconditioned residual."""
        ...

    def learn(self, directions: Tensor, images: Tensor) -> None:
        """Update from the directions [n, k] of a solve and their products with the operator."""
        ...


class Recycled:
    """A low-rank preconditioner ``I + W (L^-1 - I) W^T`` from the Ritz pairs of the last solve.

    Attributes:
        vectors: [n, rank] W, orthonormal, or None before the first solve.
        values: [rank] L.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.vectors: Tensor | None = None
        self.values: Tensor | None = None

    def __call__(self, residual: Tensor) -> Tensor:
        """Return the preconditioned residual."""
        if self.vectors is None or self.values is None:
            return residual
        weights = (1 / self.values - 1) * (self.vectors.T @ residual)
        return residual + self.vectors @ weights

    def learn(self, directions: Tensor, images: Tensor) -> None:
        """Keep the leading Ritz pairs."""
        p, q = directions.double(), images.double()
        scale = p.norm(dim=0)
        p, q = p / scale, q / scale
        overlaps, basis = torch.linalg.eigh(p.T @ p)
        kept = overlaps > 1e-8
        basis = basis[:, kept] * overlaps[kept].rsqrt()
        values, rotation = torch.linalg.eigh(basis.T @ ((p.T @ q + q.T @ p) / 2) @ basis)
        self.vectors = (p @ basis @ rotation[:, -self.rank :]).float()
        self.values = values[-self.rank :].clamp(min=1).float()


class Diagonal:
    """The inverse of a running estimate of the diagonal, without additional products.

    The estimate is that of Bekas, Kokiopoulou and Saad (2007) with the directions of the solves
    instead of random vectors: ``sum p * (A p) / sum p * p``.
    """

    def __init__(self, decay: float = 0.9) -> None:
        self.decay = decay
        self._above: Tensor | float = 0.0
        self._below: Tensor | float = 0.0

    def __call__(self, residual: Tensor) -> Tensor:
        """Return the preconditioned residual."""
        if isinstance(self._below, float):
            return residual
        return residual / (self._above / self._below.clamp(min=1e-30)).clamp(min=1)

    def learn(self, directions: Tensor, images: Tensor) -> None:
        """Add the directions to the estimate."""
        unit = directions / directions.norm(dim=0)
        images = images / directions.norm(dim=0)
        self._above = self.decay * self._above + (unit * images).sum(1)
        self._below = self.decay * self._below + (unit * unit).sum(1)


def preconditioned(
    matvec: Callable[[Tensor], Tensor], rhs: Tensor, rtol: float, preconditioner: Preconditioner
) -> tuple[Tensor, int]:
    """Solve by preconditioned conjugate gradients; return the solution and the iterations."""
    x, r = torch.zeros_like(rhs), rhs.clone()
    z = preconditioner(r)
    p, rho = z, torch.dot(r, z)
    directions, images = [], []
    bound = rtol * torch.linalg.vector_norm(rhs)
    while torch.linalg.vector_norm(r) > bound and len(images) < MAX_ITER:
        q = matvec(p)
        directions.append(p)
        images.append(q)
        alpha = rho / torch.dot(p, q)
        x, r = x + alpha * p, r - alpha * q
        z = preconditioner(r)
        rho, before = torch.dot(r, z), rho
        p = z + rho / before * p
    if directions:
        preconditioner.learn(torch.stack(directions, 1), torch.stack(images, 1))
    return x, len(images)


class Study(Solver):
    """Solves exactly, and also tries the other ways on each system.

    Attributes:
        record: their cost and errors.
        parts: the mixed block computed on smaller batches, by name, for the next solve; None to
            solve the next system only exactly.
    """

    def __init__(self) -> None:
        self.record = Record()
        self.parts: Mapping[str, Derivatives] | None = None
        self._exact = ConjugateGradient(rtol=1e-6, max_iter=MAX_ITER, check_last=True)
        self._moves: list[Tensor] = []
        self._rhs_norm: Tensor | None = None
        self._preconditioners: dict[tuple[float, str], Preconditioner] = {
            **{
                (t, f"{r} Ritz vectors recycled"): Recycled(r)
                for t in RECYCLED_TOLERANCES
                for r in RANKS
            },
            **{(t, "diagonal estimated"): Diagonal() for t in RECYCLED_TOLERANCES},
        }

    def solve(self, operator, rhs, x0=None) -> Solution:
        """Return the exact solution, without trying other ways."""
        return self._exact.solve(operator, rhs, x0)

    def solve_coupled(self, operator, rhs, coupled_rhs, inner_start=None, x0=None) -> Solution:
        """Return the exact solution; record cost and error of the other ways."""
        before = operator.derivatives.num_products
        found = solve_coupled(self._exact, operator, rhs.clone(), coupled_rhs)
        products = operator.derivatives.num_products - before
        assert found.inner_value is not None
        # Copy the result, because the other solves overwrite the workspace.
        exact = Solution(
            found.value.clone(),
            found.num_iter,
            found.residual_norm,
            found.rhs_norm,
            found.status_code,
            inner_value=found.inner_value.clone(),
        )
        if self.parts is not None:
            self.record.add("1e-06 | cold, last residual computed", products, 0.0)
            self._try_solvers(operator, rhs, coupled_rhs, exact)
            self._try_preconditioners(operator, rhs, coupled_rhs, exact)
            for name, mixed in self.parts.items():
                self._try_part(name, mixed, operator, rhs, coupled_rhs, exact)
        self._moves = [*self._moves[-1:], operator.scale * exact.value]
        self._rhs_norm = exact.rhs_norm
        return exact

    def _try_solvers(self, operator, rhs, coupled_rhs, exact: Solution) -> None:
        guesses = {"cold": None}
        if len(self._moves) > 1:
            before, last = self._moves
            guesses["from the last move"] = last / operator.scale
            guesses["from two moves extrapolated"] = (2 * last - before) / operator.scale
        tolerances = {f"{rtol:g}": rtol for rtol in TOLERANCES}
        if self._rhs_norm is not None:
            ratio = FORCING_FACTOR * float(exact.rhs_norm / self._rhs_norm) ** FORCING_POWER
            low, high = FORCING_BOUNDS
            tolerances["forcing"] = min(max(ratio, low), high)
        for title, rtol in tolerances.items():
            for name, guess in guesses.items():
                for checked in (True, False):
                    solver = ConjugateGradient(rtol=rtol, max_iter=MAX_ITER, check_last=checked)
                    before_products = operator.derivatives.num_products
                    found = solve_coupled(solver, operator, rhs.clone(), coupled_rhs, x0=guess)
                    how = f"{name}, last residual {'computed' if checked else 'predicted'}"
                    products = operator.derivatives.num_products - before_products
                    self._add(f"{title} | {how}", products, found.value, exact)

    def _try_preconditioners(self, operator, rhs, coupled_rhs, exact: Solution) -> None:
        reduced = rhs - operator.factor(operator.scale_inner(coupled_rhs))
        for (rtol, name), preconditioner in self._preconditioners.items():
            leads = isinstance(preconditioner, Recycled) and preconditioner.rank == max(RANKS)
            if leads and rtol == min(RECYCLED_TOLERANCES):
                self._look_again(operator, preconditioner)
            value, num_iter = preconditioned(operator.matvec, reduced, rtol, preconditioner)
            self._add(f"{rtol:g} | {name}", 1 + 2 * num_iter, value, exact)

    def _look_again(self, operator, recycled: Recycled) -> None:
        """Record the last solve's leading eigenvalue, and the new operator's along its vector."""
        if recycled.vectors is not None and recycled.values is not None:
            leading = recycled.vectors[:, -1]
            self.record.note("leading eigenvalue - 1, last step", float(recycled.values[-1] - 1))
            now = torch.dot(leading, operator.matvec(leading)) / torch.dot(leading, leading)
            self.record.note("its direction in this step's operator - 1", float(now - 1))

    def _try_part(
        self, name: str, mixed: Derivatives, operator, rhs, coupled_rhs, exact: Solution
    ) -> None:
        part = TwoPlayerOperator(
            mixed, operator.player, operator.scale, operator.opponent_step_sizes
        )
        found = solve_coupled(self._exact, part, rhs.clone(), coupled_rhs)
        self._add(f"1e-06 | {name}", mixed.num_products, found.value, exact)

    def _add(self, name: str, products: int, value: Tensor, exact: Solution) -> None:
        error = torch.linalg.vector_norm(value - exact.value)
        self.record.add(name, products, float(error / torch.linalg.vector_norm(exact.value)))
