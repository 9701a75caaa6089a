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
    value of a device, as device graphs need; a system that is solved exactly on the way stays as
    it is.

    In a coupled solve an iteration takes two products with the factor: the first gives the step
    length, the second the residual that it leads to. By default the second is left out where only
    the last residual depends on it: in the last iteration of a fixed count, and where an iteration
    is predicted to reach the tolerance. The prediction is that the residual falls once more as it
    did where it fell least, but by no more than a factor of 10; it is made for weak interaction
    only, where all step lengths were at least a half (one is that of the identity).

    The residual norm is that of the recursion, predicted or not, which costs no product. Rounding
    bounds the true residual ``rhs - A x`` from below, but not that of the recursion. So if the
    condition number times the precision of the dtype is not far below ``rtol``, the true residual
    is larger (in float64, at a condition number of 1e10, about ten times). It takes one product.

    Args:
        rtol: tolerance relative to the right-hand side.
        atol: absolute tolerance.
        max_iter: most iterations; 0 returns the first guess.
        check_last: whether to compute the last residual, rather than predict it, at the cost of
            one product with the factor.

    Cost: one product per iteration, one more from a first guess. Coupled: ``2 k`` products with
    the factor for ``k`` iterations, ``1 + 2 k`` if the last residual is computed; one more from a
    first guess. Memory: four vectors [n], three [m] when coupled; from a first guess one [n] more
    unless coupled.

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

    Its scalars are tensors of the device, none of which is read here but by :meth:`outlook`. They
    are numbers of Python where reading costs nothing (``operator.is_on_host``): what is done with
    them is then in `kernels/cg/host.py`, otherwise in its neighbours.

    Differences from the textbook iteration:

    1. A coupled solve carries ``y = H (c + F^T x)`` beside x. An iteration forms ``H F^T p`` on its
       way to ``A p``, so y costs no product; and the residual of the reduced system is
       ``rhs - F y - x``, so neither the reduced right-hand side nor a first guess needs an extra
       product.
    2. From a first guess that saving leaves the reduced right-hand side ``b = rhs - F H c``
       unformed, so its norm is replaced by the largest of the lower bounds ``b . x / |x|`` that
       the iterates have given, where ``b . x = rhs . x - c . (y - H c)`` needs no product. The
       solve is then never looser than asked.
    3. Step lengths are zero once the residual is exactly zero or the iteration has broken down, so
       iterations past the end change nothing.
    4. Residual and direction are kept in a unit in which their squares are numbers, whatever the
       size of the system: a power of two, so that it changes no digit. Norms and tolerances here
       are in that unit. From zero the iterates stay as they are asked for; from a first guess they
       are in that unit too, for the lower bounds are made of squares as well.
    """

    def __init__(
        self, operator: LinearOperator, rhs: Tensor, x0: Tensor | None, *inner: Tensor
    ) -> None:
        check_definite(operator)
        # Of a coupled solve the right-hand side is ours to overwrite.
        self.is_coupled = bool(inner)
        self.operator = operator
        self.dtype = accumulator(rhs.dtype)
        # The one place that decides.
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
        # Where the residual is until the first iteration writes it to `r`: a pass is saved.
        self.source: Tensor | None = self.p

    def _total(self, partials: Tensor) -> Any:
        """Return sums over whole vectors from those of the parts that this process keeps."""
        total = self.operator.total(partials)
        return total.tolist() if self.is_on_host else total

    def _sum(self, partials: Tensor) -> Any:
        """Return the sum of numbers [k] over all parts, which kernels on a device form."""
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
        # Zero solves a zero system exactly; from elsewhere no residual would be within a
        # tolerance of zero.
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
        # Before the first iteration the direction is the residual.
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
        # The other player's right-hand side is not ours to divide.
        bound = own - (both - self.inner_square) / self.scale
        # Later bounds may be lower: what one look took for converged must stay so.
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
        """Return whether there is nothing left to gain, and whether one iteration is left."""
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
        """Return what has been found."""
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
    """Return the inner product of what this process keeps of two vectors, at least in float32."""
    dtype = accumulator(a.dtype)
    return torch.dot(a, b) if dtype is a.dtype else torch.dot(a.to(dtype), b.to(dtype))
