"""The generalized minimal residual method."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compopt._checks import check_count
from compopt.kernels._numbers import power_of_two, size_of
from compopt.operators import CoupledOperator, LinearOperator
from compopt.solvers.base import IterativeSolver, Solution, status_code


@dataclass(frozen=True)
class GMRES(IterativeSolver):
    """Restarted generalized minimal residual method, for operators of any kind.

    Stops when ``|residual| <= max(rtol * |rhs|, atol)`` in the Euclidean norm, or with
    ``Status.STAGNATED`` when a whole cycle does not lower the residual. With ``rtol = atol = 0`` it
    makes exactly ``max_iter`` iterations and reads no values on the host.

    Givens rotations on the device solve the small least-squares problem. They give the residual
    norm, which is read on the host once per iteration if there is a tolerance. Between cycles the
    residual is computed. After the last cycle its norm is that of the rotations, which costs no
    product. It is computed instead if ``check_last`` is set or ``rtol`` is near the precision of
    the dtype.

    Args:
        rtol: tolerance relative to the right-hand side.
        atol: absolute tolerance.
        max_iter: maximum number of iterations over all cycles; 0 returns the first guess.
        restart: iterations per cycle, and number of vectors that are kept.
        check_last: whether to compute the last residual.

    Cost: one product per iteration, one between cycles, one for a first guess, one if the last
    residual is computed. Coupled: one more with the first factor. Memory: each iteration keeps one
    vector [n] until the cycle ends, and one [m] when coupled.

    References:
        Saad and Schultz (1986). https://doi.org/10.1137/0907058
    """

    restart: int = 20
    check_last: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("restart", self.restart, minimum=1)

    def _solve(self, operator: LinearOperator, rhs: Tensor, x0: Tensor | None) -> Solution:
        return self._run(operator, rhs, x0, _Products(operator.matvec))

    def _solve_coupled(
        self, operator: CoupledOperator, rhs: Tensor, x0: Tensor | None, *inner: Tensor
    ) -> Solution:
        # The inner half is a combination of reactions that the products compute anyway, so it
        # costs no further product.
        _, start = inner
        products = _CoupledProducts(operator)
        solution = self._run(operator, rhs - operator.factor(start), x0, products)
        if products.inner is not None:
            start = start.add_(products.inner)
        return replace(solution, inner_value=start)

    def _run(
        self, operator: LinearOperator, rhs: Tensor, x0: Tensor | None, products: "_Products"
    ) -> Solution:
        # Scale the system so that squares neither overflow nor underflow.
        system = operator.total(size_of(rhs))
        guess = 0 if x0 is None else operator.total(size_of(x0))
        scale = power_of_two(system + guess)
        rhs = rhs / scale
        rhs_norm = _norm(operator, rhs)
        target = self.rtol * rhs_norm
        if self.atol:
            target = torch.maximum(target, self.atol / scale)
        if x0 is None:
            x, residual = torch.zeros_like(rhs), rhs
        else:
            # For a zero system, start at zero, the exact solution.
            x = x0 / torch.where(system == 0, torch.inf, scale)
            residual = rhs - products.of(x)
            products.add(torch.ones_like(x[:1]), torch.ones_like(rhs_norm, dtype=torch.bool))
        checks_last = self.check_last or 0 < self.rtol < 100 * torch.finfo(rhs.dtype).eps
        norm = _norm(operator, residual)
        stagnated: Tensor | None = None
        num_iter = 0
        while num_iter < self.max_iter and (
            self.has_fixed_count or _is_above(operator, norm, target)
        ):
            limit = min(self.restart, self.max_iter - num_iter)
            step, weights, new_norm, is_near = self._cycle(
                operator, products, residual, norm, target, limit
            )
            made = len(weights)
            num_iter += made
            candidate = x + step
            is_last = is_near or num_iter == self.max_iter
            if checks_last or not is_last:
                residual = rhs - operator.matvec(candidate)
                new_norm = _norm(operator, residual)
            # Discard a cycle that is not finite or raises the residual norm.
            is_lower = new_norm <= norm
            x = torch.where(is_lower, candidate, x)
            products.add(weights, is_lower)
            stalled = ~(new_norm < norm)
            # A cycle cut short by `max_iter` is no sign of stagnation: more iterations might help.
            was_whole = limit == self.restart or made < limit
            norm = torch.where(torch.isfinite(new_norm), torch.minimum(new_norm, norm), new_norm)
            if is_last and not checks_last:
                break
            if not self.has_fixed_count and was_whole and bool(operator.agree(stalled)):
                stagnated = stalled
                break
        finite = torch.isfinite(norm) & torch.isfinite(rhs_norm)
        value_norm = _norm(operator, x) * scale
        if products.inner is not None:
            products.inner.mul_(scale)
        return Solution(
            value=x.mul_(scale),
            num_iter=num_iter,
            residual_norm=norm * scale,
            rhs_norm=rhs_norm * scale,
            status_code=status_code(norm <= target, torch.zeros_like(finite), finite, stagnated),
            value_norm=value_norm,
        )

    def _cycle(
        self,
        operator: LinearOperator,
        products: "_Products",
        residual: Tensor,
        norm: Tensor,
        target: Tensor,
        limit: int,
    ) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Make a cycle from ``residual``.

        Return the correction, its weights in the vectors that were multiplied, the norm of the
        remaining residual, and whether the cycle ended because that is within the tolerance.

        Modified Gram-Schmidt. If the Krylov space is exhausted, the next vector is zero and further
        iterations change nothing.

        Each column of the least-squares problem has its own scale, so the operator's entries may
        have any magnitude too.
        """
        basis = [_normalized(residual, norm)]
        upper = residual.new_zeros(limit, limit)
        # The right-hand side of the least-squares problem, and its part that is not yet fitted.
        projected = residual.new_zeros(limit)
        remainder = norm.clone()
        rotations: list[tuple[Tensor, Tensor]] = []
        units: list[Tensor] = []
        made, is_near = 0, False
        for column in range(limit):
            image = products.of(basis[column])
            units.append(power_of_two(operator.total(size_of(image))))
            vector = image / units[column]
            entries = []
            for earlier in basis:
                entry = operator.total(torch.dot(earlier, vector))
                vector.addcmul_(earlier, entry, value=-1)
                entries.append(entry)
            length = _norm(operator, vector)
            for row, (cosine, sine) in enumerate(rotations):
                first, second = entries[row], entries[row + 1]
                entries[row] = cosine * first + sine * second
                entries[row + 1] = cosine * second - sine * first
            radius = torch.hypot(entries[column], length)
            safe = torch.where(radius > 0, radius, 1)
            cosine, sine = entries[column] / safe, length / safe
            # A zero column needs no rotation: set its unknown to zero.
            is_empty = radius == 0
            rotations.append((torch.where(is_empty, 1, cosine), torch.where(is_empty, 0, sine)))
            entries[column] = torch.where(is_empty, 1, radius)
            upper[: column + 1, column] = torch.stack(entries)
            projected[column] = torch.where(is_empty, 0, cosine * remainder)
            remainder = torch.where(is_empty, remainder, -sine * remainder)
            basis.append(_normalized(vector, length))
            made += 1
            is_near = not self.has_fixed_count and not _is_above(operator, remainder.abs(), target)
            if is_near:
                break
        weights = torch.linalg.solve_triangular(
            upper[:made, :made], projected[:made, None], upper=True
        )
        weights = weights[:, 0] / torch.stack(units)
        return torch.stack(basis[:made], dim=1) @ weights, weights, remainder.abs(), is_near


class _Products:
    """Products with an operator.

    Attributes:
        inner: sum of the weighted reactions of a coupled solve, or None.
    """

    inner: Tensor | None = None

    def __init__(self, matvec: Callable[[Tensor], Tensor]) -> None:
        self.of = matvec

    def add(self, weights: Tensor, is_taken: Tensor) -> None:
        """Add the weighted products since the last call, if the cycle is taken."""


class _CoupledProducts(_Products):
    """Products with a coupled operator. Keeps their reactions until :meth:`add` sums them."""

    def __init__(self, operator: CoupledOperator) -> None:
        super().__init__(self._multiply)
        self._operator = operator
        self._reactions: list[Tensor] = []

    def _multiply(self, vector: Tensor) -> Tensor:
        reaction = self._operator.reaction(vector)
        self._reactions.append(reaction)
        return self._operator.factor(reaction).add_(vector)

    def add(self, weights: Tensor, is_taken: Tensor) -> None:
        """Add the weighted reactions since the last call to ``inner``, if the cycle is taken."""
        added = torch.stack(self._reactions, dim=1) @ weights.to(self._reactions[0].dtype)
        added = torch.where(is_taken, added, 0)
        self.inner = added if self.inner is None else self.inner.add_(added)
        self._reactions.clear()


def _is_above(operator: LinearOperator, norm: Tensor, target: Tensor) -> bool:
    """Return True if ``norm`` is finite and above ``target``. Reads values on the host."""
    return bool(operator.agree(torch.isfinite(norm) & (norm > target)))


def _norm(operator: LinearOperator, vector: Tensor) -> Tensor:
    """Return the norm of a whole vector that has been scaled."""
    return operator.total(torch.dot(vector, vector)).sqrt()


def _normalized(vector: Tensor, length: Tensor) -> Tensor:
    return torch.where(length > 0, vector / length, 0)
