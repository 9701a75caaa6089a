"""The conjugate gradient method."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compopt.kernels import operations, partial_dot, uses_triton
from compopt.kernels._numbers import (
    Number,
    accumulator,
    as_tensor,
    divide,
    power_of_two,
    size_of,
)
from compopt.kernels.cg import host
from compopt.operators import CoupledOperator, LinearOperator
from compopt.solvers.base import IterativeSolver, Solution, check_definite, status_code


@dataclass(frozen=True)
class ConjugateGradient(IterativeSolver):
    """Conjugate gradient method for symmetric positive definite operators.

    Stops when ``|residual| <= max(rtol * |rhs|, atol)`` in the Euclidean norm (norms, not their
    squares). With ``rtol = atol = 0`` it makes exactly ``max_iter`` iterations and never reads a
    value from the device, as device graphs require; once the solution is exact, further iterations
    do not change it.

    In a coupled solve an iteration takes two products with the factor: the first for the step
    length, the second for the new residual. By default the second is skipped if only the last
    residual depends on it: in the last iteration of a fixed count, and if an iteration is predicted
    to reach the tolerance. The prediction assumes that the residual norm falls by the smallest
    factor so far, but by at most 10. It is made only for weak interaction, when all step lengths
    were at least a half (for the identity they are one).

    The residual norm is that of the recursion, predicted or not, and costs no product. Rounding
    errors limit how small the true residual ``rhs - A x`` becomes, but not that of the recursion.
    So if the condition number times the precision of the dtype is not far below ``rtol``, the true
    residual is larger (in float64, at a condition number of 1e10, about ten times). Computing it
    takes one product.

    Args:
        rtol: tolerance relative to the right-hand side.
        atol: absolute tolerance.
        max_iter: maximum number of iterations; 0 returns the first guess.
        check_last: whether to compute the last residual rather than predict it, at the cost of one
            product with the factor.

    Cost: one product per iteration, and one for a first guess. Coupled: ``2 k`` products with the
    factor for ``k`` iterations, ``1 + 2 k`` if the last residual is computed, and one for a first
    guess. Memory: four vectors [n], three [m] when coupled; for a first guess one more [n] unless
    coupled.

    References:
        Hestenes and Stiefel (1952). https://doi.org/10.6028/jres.049.044
    """

    check_last: bool = False

    def _solve(self, operator: LinearOperator, rhs: Tensor, x0: Tensor | None) -> Solution:
        return self._run(_Iteration(operator, rhs, x0), predicts=False)

    def _solve_coupled(
        self, operator: CoupledOperator, rhs: Tensor, x0: Tensor | None, *inner: Tensor
    ) -> Solution:
        return self._run(_Iteration(operator, rhs, x0, *inner), predicts=not self.check_last)

    def _run(self, iteration: "_Iteration", *, predicts: bool) -> Solution:
        has_fixed_count = self.has_fixed_count
        for num_iter in range(self.max_iter):
            is_last = has_fixed_count and num_iter == self.max_iter - 1
            if not has_fixed_count:
                has_stopped, is_last = iteration.outlook(self.rtol, self.atol)
                if has_stopped:
                    return iteration.solution(num_iter, self.rtol, self.atol)
            if is_last and predicts:
                iteration.finish()
                return iteration.solution(num_iter + 1, self.rtol, self.atol)
            iteration.advance()
        return iteration.solution(self.max_iter, self.rtol, self.atol)


class _Iteration:
    """The vectors of a running conjugate gradient iteration.

    Its scalars are tensors on the device, which only :meth:`outlook` reads. If reading costs
    nothing (``operator.is_on_host``) they are Python numbers. `kernels/cg/host.py` handles those,
    the other modules in `kernels/cg` handle tensors.

    Differences from the textbook iteration:

    1. A coupled solve updates ``y = H (c + F^T x)`` along with x. An iteration computes ``H F^T p``
       for ``A p`` anyway, so y costs no product. The residual of the reduced system is
       ``rhs - F y - x``, so neither the reduced right-hand side nor a first guess needs an extra
       product.
    2. With a first guess, the reduced right-hand side ``b = rhs - F H c`` is never formed. Its norm
       is replaced by the largest lower bound ``b . x / |x|`` of the iterates so far, where
       ``b . x = rhs . x - c . (y - H c)`` needs no product. The tolerance is then never looser than
       requested.
    3. Step lengths are zero once the residual is exactly zero or the iteration has broken down, so
       further iterations change nothing.
    4. Residual and direction are divided by a power of two so that their squares neither overflow
       nor underflow; this changes no digit. Norms and tolerances here have the same unit. With a
       first guess the iterates have it too, as their squares enter the lower bounds.
    """

    def __init__(
        self, operator: LinearOperator, rhs: Tensor, x0: Tensor | None, *inner: Tensor
    ) -> None:
        check_definite(operator)
        # A coupled solve may overwrite the right-hand side.
        self.is_coupled = bool(inner)
        self.operator = operator
        self.dtype = accumulator(rhs.dtype)
        # Nothing else decides whether scalars are Python numbers.
        self.is_on_host = operator.is_on_host and rhs.dtype == self.dtype and not uses_triton(rhs)
        self.kernels: Any = host if self.is_on_host else operations
        self.inner_rhs: Tensor | None
        self.y: Tensor | None
        self.inner_rhs, self.y = inner or (None, None)
        self.t: Tensor | None = None
        if self.is_coupled:
            assert isinstance(operator, CoupledOperator)
            self.t = operator.new_inner("t")
        self.x, self.p = operator.new_vector("x"), operator.new_vector("p")
        self.known_rhs_norm: Number | None = None
        self.is_predicted = False
        self.has_scaled_iterates = x0 is not None
        if x0 is None:
            self._begin_at_zero(rhs)
        else:
            self._begin_at(x0, rhs)
        # The first iteration reads the residual here and writes `r`, which saves a copy.
        self.source: Tensor | None = self.p

    def _total(self, partials: Tensor) -> Any:
        """Return sums over whole vectors, given the sums over this process's parts."""
        total = self.operator.total(partials)
        return total.tolist() if self.is_on_host else total

    def _sum(self, partials: Tensor) -> Any:
        """Return the total of partial sums [k]; on a device, kernels add them up."""
        total = self.operator.total(partials)
        return total.item() if self.is_on_host else total

    def _begin_at_zero(self, rhs: Tensor) -> None:
        operator = self.operator
        self.r = rhs if self.is_coupled else operator.new_vector("r")
        residual = rhs
        if self.y is not None:
            assert isinstance(operator, CoupledOperator)
            product = operator.factor(self.y, operator.new_vector("q"))
            residual = torch.sub(rhs, product, out=self.r)
        self.scale = power_of_two(self._total(size_of(residual)), self.dtype)
        divide(residual, self.scale, out=self.p)
        self.x.zero_()
        gamma = self._total(_dot(self.p, self.p))
        self.state = self.kernels.CGState(gamma, self.scale)
        self.known_rhs_norm = gamma**0.5

    def _begin_at(self, x0: Tensor, rhs: Tensor) -> None:
        operator, system = self.operator, size_of(rhs)
        if self.y is not None:
            system = system + size_of(self.y)
        system, guess = self._total(torch.stack([system, size_of(x0)]))
        self.scale = power_of_two(system + guess, self.dtype)
        self.rhs = divide(rhs, self.scale, rhs if self.is_coupled else operator.new_vector("rhs"))
        # For a zero system, start at zero, the exact solution: its tolerance is zero, which no
        # iteration from another start would reach.
        if isinstance(system, Tensor):
            divide(x0, torch.where(system == 0, torch.inf, self.scale), out=self.x)
        else:
            divide(x0, self.scale if system else math.inf, out=self.x)
        self.r = operator.new_vector("r")
        if self.y is None:
            torch.sub(self.rhs, operator.matvec(self.x), out=self.p)
            other = _dot(self.rhs, self.rhs)
        else:
            assert isinstance(operator, CoupledOperator)
            assert self.t is not None
            assert self.inner_rhs is not None
            divide(self.y, self.scale, out=self.y)
            other = _dot(self.inner_rhs, self.y)
            torch.sub(self.rhs, self.x, out=self.r)
            self.y.add_(operator.reaction(self.x, self.t))
            product = operator.factor(self.y, operator.new_vector("q"))
            torch.sub(self.r, product, out=self.p)
        gamma, other = self._total(torch.stack([_dot(self.p, self.p), other]))
        self.state = self.kernels.CGState(gamma)
        if self.y is None:
            self.known_rhs_norm = other**0.5
        else:
            self.inner_square = other
            self.rhs_bound = gamma * 0

    def advance(self) -> None:
        """Make one iteration."""
        if self.t is None:
            q = self.operator.matvec(self.p)
            curvature = partial_dot(self.p, q)
        else:
            assert isinstance(self.operator, CoupledOperator)
            self.operator.reaction(self.p, self.t)
            q = self.operator.new_vector("q")
            curvature = self.operator.add_factor(self.p, self.t, q)
        curvature = self._sum(curvature)
        square = self.kernels.cg_update_(
            self.x, self.y, self.r, self.p, self.t, q, curvature, self.state, self.source
        )
        self.kernels.cg_scalars_(self.state, curvature, self._sum(square))
        self.kernels.cg_direction_(self.p, self.r, self.state)
        self.source = None

    def finish(self) -> None:
        """Make a last iteration without the product that only its residual depends on."""
        assert isinstance(self.operator, CoupledOperator)
        t, energy = self.operator.reaction_energy(self.p, self.t)
        # Before the first iteration the direction is the residual, whose square is known.
        is_first = self.is_on_host and self.source is not None
        square = self.state.gamma if is_first else self._sum(partial_dot(self.p, self.p))
        if self.is_on_host:
            curvature = square + energy.item()
        else:
            curvature = torch.cat([square, energy.reshape(1)])
        self.kernels.cg_update_(self.x, self.y, None, self.p, t, None, curvature, self.state)
        self.kernels.cg_scalars_(self.state, curvature, None)
        self.is_predicted = True

    def _rhs_norm(self) -> Any:
        """Return the norm of the reduced right-hand side, or the best lower bound so far."""
        if self.known_rhs_norm is not None:
            return self.known_rhs_norm
        assert self.y is not None
        assert self.inner_rhs is not None
        own, both, square = self._total(
            torch.stack(
                [
                    _dot(self.rhs, self.x),
                    _dot(self.inner_rhs, self.y),
                    _dot(self.x, self.x),
                ]
            )
        )
        # `inner_rhs` must not be modified, so divide the product instead.
        bound = own - (both - self.inner_square) / self.scale
        # Keep the largest: with a lower bound, a converged solve could become unconverged.
        if isinstance(square, Tensor):
            bound = torch.where(square > 0, bound / square.sqrt(), 0)
            self.rhs_bound = torch.fmax(self.rhs_bound, bound)
        elif square > 0:
            self.rhs_bound = max(self.rhs_bound, bound / math.sqrt(square))
        return self.rhs_bound

    def _tolerance(self, rhs_norm: Any, rtol: float, atol: float) -> Any:
        tolerance, larger = rtol * rhs_norm, max if self.is_on_host else torch.maximum
        return larger(tolerance, atol / self.scale) if atol else tolerance

    def outlook(self, rtol: float, atol: float) -> tuple[bool, bool]:
        """Return whether the solve has ended, and whether one iteration is predicted to be left."""
        state, tolerance = self.state, self._tolerance(self._rhs_norm(), rtol, atol)
        is_solved = state.gamma**0.5 <= tolerance
        is_last = state.next_gamma**0.5 <= tolerance
        if self.is_on_host:
            flags: Any = [is_solved or state.breakdown or not state.finite, is_last]
        else:
            flags = torch.stack([is_solved | state.breakdown | ~state.finite, is_last])
        has_stopped, is_last = self.operator.agree(flags)
        return has_stopped, is_last

    def solution(self, num_iter: int, rtol: float, atol: float) -> Solution:
        """Return the solution so far."""
        state = self.state
        residual_norm, rhs_norm = state.gamma**0.5, self._rhs_norm()
        if self.has_scaled_iterates:
            inverse = 1 / self.scale
            for iterate in (self.x, self.y):
                if iterate is not None:
                    divide(iterate, inverse, out=iterate)
        is_solved = residual_norm <= self._tolerance(rhs_norm, rtol, atol)
        return Solution(
            value=self.x,
            inner_value=self.y,
            num_iter=num_iter,
            residual_norm=as_tensor(residual_norm * self.scale, self.dtype),
            rhs_norm=as_tensor(rhs_norm * self.scale, self.dtype),
            status_code=status_code(is_solved, state.breakdown, state.finite),
            is_predicted=self.is_predicted,
        )


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of this process's parts of two vectors, at least in float32."""
    dtype = accumulator(a.dtype)
    return torch.dot(a, b) if dtype is a.dtype else torch.dot(a.to(dtype), b.to(dtype))
