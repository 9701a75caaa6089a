"""Interface of linear solvers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Protocol

import torch
from torch import Tensor

from compopt._checks import check_count, check_non_negative, check_vector
from compopt.operators import CoupledOperator, LinearOperator


class Status(IntEnum):
    """Reason why a solver stopped. Members after ``MAX_ITER`` are failures."""

    CONVERGED = 0
    STAGNATED = 1
    MAX_ITER = 2
    BREAKDOWN = 3
    NON_FINITE = 4

    @property
    def sentence(self) -> str:
        """What happened, and what to try."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.CONVERGED: "The residual is within the tolerance.",
    Status.STAGNATED: (
        "The residual stopped falling before it was within the tolerance, and more iterations "
        "would not lower it. Lower the learning rates: losses that fall together make the system "
        "nearly singular at some of them. Or raise `restart`, or `rtol` if it asks for more digits "
        "than the dtype has."
    ),
    Status.MAX_ITER: (
        "The solver used all its iterations before the residual was within the tolerance. Raise "
        "`max_iter` or `rtol`, or lower the learning rates: strong interaction needs more "
        "iterations."
    ),
    Status.BREAKDOWN: (
        "The operator was not positive definite along a search direction. Check that it is "
        "symmetric and repeatable with `compopt.check_operator`."
    ),
    Status.NON_FINITE: (
        "The right-hand side or a product holds NaN or Inf. Check the loss and its second "
        "derivatives: a square root or norm at zero is the usual cause."
    ),
}


@dataclass(frozen=True)
class Solution:
    """Result of a solver. Failure is a status, not an exception; the caller decides what to do.

    Attributes:
        value: [n] the last finite iterate. (With a fixed iteration count no values are read during
            the solve, and ``value`` is unspecified if it fails.)
        inner_value: [m] or None, the other half of a coupled solve, see :func:`solve_coupled`.
        num_iter: number of iterations; one iteration is one product with the operator.
        residual_norm: 0-dim, computed or predicted Euclidean norm of ``rhs - A @ value``; NaN if
            neither is known. The conjugate gradient method takes it from its recursion, see
            :class:`~compopt.ConjugateGradient`.
        rhs_norm: 0-dim, norm of the right-hand side that ``rtol`` refers to.
        status_code: 0-dim integer, the :class:`Status` on the device.
        is_predicted: whether the last residual was predicted rather than computed.
        value_norm: 0-dim, Euclidean norm of ``value``, or None if the solver does not compute it.
            If it is far larger than ``rhs_norm``, the operator may be nearly singular.
    """

    value: Tensor
    num_iter: int
    residual_norm: Tensor
    rhs_norm: Tensor
    status_code: Tensor
    is_predicted: bool = False
    value_norm: Tensor | None = None
    inner_value: Tensor | None = None

    @property
    def status(self) -> Status:
        """Reason why the solver stopped. Reading it synchronises with the device."""
        return Status(int(self.status_code))


class Solver(Protocol):
    """Solves a linear system that is given by products with the matrix."""

    def solve(self, operator: LinearOperator, rhs: Tensor, x0: Tensor | None = None) -> Solution:
        """Solve ``operator @ x = rhs``.

        Args:
            operator: [n, n].
            rhs: [n], with the operator's ``dtype`` and ``device``. Not modified. Entries may have
                any magnitude in the range of the dtype: scaling a system does not change the
                iterations.
            x0: [n] first guess, with the dtype and device of ``rhs``; zeros if None. Not modified.

        The result has no graph, even if an argument requires a gradient.
        """
        ...


@dataclass(frozen=True)
class IterativeSolver(ABC):
    """Base of iterative solvers. Checks their arguments, which :class:`GMRES` describes."""

    rtol: float = 1e-2
    atol: float = 0.0
    max_iter: int = 20

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            check_non_negative(name, getattr(self, name))
        check_count("max_iter", self.max_iter, minimum=0)

    @property
    def has_fixed_count(self) -> bool:
        """Whether the number of iterations is fixed, so that no values are read on the host."""
        return self.rtol == 0 and self.atol == 0

    @torch.no_grad()
    def solve(self, operator: LinearOperator, rhs: Tensor, x0: Tensor | None = None) -> Solution:
        """Solve as :class:`~compopt.solvers.Solver` describes.

        Raises:
            TypeError: if the method does not apply to ``operator``.
            ValueError: if shapes, dtypes or devices do not fit.
        """
        check_system(operator, rhs, x0)
        return self._solve(operator, rhs, x0)

    @torch.no_grad()
    def solve_coupled(
        self,
        operator: CoupledOperator,
        rhs: Tensor,
        inner_rhs: Tensor,
        inner_start: Tensor | None = None,
        x0: Tensor | None = None,
    ) -> Solution:
        """Solve as :func:`~compopt.solvers.solve_coupled` describes, with fewer products.

        Raises:
            TypeError, ValueError: as :meth:`solve`.
        """
        check_system(operator, rhs, x0, inner_rhs)
        if inner_start is None:
            inner_start = operator.scale_inner(inner_rhs, operator.new_inner("y"))
        return self._solve_coupled(operator, rhs, x0, inner_rhs, inner_start)

    @abstractmethod
    def _solve(self, operator: LinearOperator, rhs: Tensor, x0: Tensor | None) -> Solution:
        """Solve a system whose arguments have been checked."""

    @abstractmethod
    def _solve_coupled(
        self, operator: CoupledOperator, rhs: Tensor, x0: Tensor | None, *inner: Tensor
    ) -> Solution:
        """Solve a coupled system; ``inner`` are the checked ``inner_rhs`` and ``inner_start``."""


def solve_coupled(
    solver: Solver,
    operator: CoupledOperator,
    rhs: Tensor,
    inner_rhs: Tensor,
    inner_start: Tensor | None = None,
    x0: Tensor | None = None,
) -> Solution:
    """Solve the coupled system of a :class:`~compopt.operators.CoupledOperator`.

    With ``A = I + F H G`` and ``inner_rhs`` = c, solve

        x = rhs - F y,     y = H (c + G x)

    for x (``value``) and y (``inner_value``). Eliminating y gives ``A x = rhs - F H c``, which the
    solver solves. If the solver has a method ``solve_coupled`` that takes the arguments from
    ``operator`` on, the call is passed to that method.

    Args:
        solver: solver of the reduced system.
        operator: A.
        rhs: [n]. May be overwritten.
        inner_rhs: [m] with the operator's ``inner_dtype``, where m is its ``inner_size``. Not
            modified.
        inner_start: [m] ``H c``, the y for x = 0, if already known. May be overwritten.
        x0: [n] first guess, zeros if None. Not modified.

    Cost: the solver's products, and one more with each factor.
    """
    own_way = getattr(solver, "solve_coupled", None)
    if own_way is not None:
        solution: Solution = own_way(operator, rhs, inner_rhs, inner_start, x0)
        return solution
    check_system(operator, rhs, x0, inner_rhs)
    with torch.no_grad():
        start = operator.scale_inner(inner_rhs) if inner_start is None else inner_start
        solution = solver.solve(operator, rhs - operator.factor(start), x0)
        return replace(solution, inner_value=start.add_(operator.reaction(solution.value)))


def check_system(
    operator: LinearOperator, rhs: Tensor, x0: Tensor | None, inner_rhs: Tensor | None = None
) -> None:
    """Raise unless shapes, dtypes and devices fit the operator, a coupled one for ``inner_rhs``."""
    size, dtype, device = operator.size, operator.dtype, operator.device
    for name, vector in (("rhs", rhs), ("x0", x0), ("inner_rhs", inner_rhs)):
        if vector is None:
            continue
        if name == "inner_rhs":
            assert isinstance(operator, CoupledOperator)
            size, dtype = operator.inner_size, operator.inner_dtype
        if vector.shape != (size,):
            check_vector(name, vector, size)
        if vector.dtype is not dtype or vector.device != device:
            raise ValueError(
                f"`{name}` must have the operator's dtype and device, {dtype} on {device}, got "
                f"{vector.dtype} on {vector.device}. Convert it: "
                f"`{name}.to({str(device)!r}, {dtype})`."
            )


def check_definite(operator: LinearOperator) -> None:
    """Raise unless the operator is declared to be symmetric positive definite."""
    if not operator.is_positive_definite:
        raise TypeError(
            "Conjugate gradient needs a symmetric positive definite operator; "
            f"{type(operator).__name__} does not declare itself one. "
            "Two different losses (a general-sum game) give an unsymmetric operator."
        )


def status_code(
    converged: Any, breakdown: Any, finite: Any, stagnated: Tensor | None = None
) -> Tensor:
    """Combine flags into a 0-dim :class:`Status` code, without reading tensors on the host."""
    if not isinstance(converged, Tensor):
        solved = Status.CONVERGED if converged else Status.MAX_ITER
        status = Status.NON_FINITE if not finite else Status.BREAKDOWN if breakdown else solved
        return torch.full((), int(status), device="cpu")
    unsolved: int | Tensor = int(Status.MAX_ITER)
    if stagnated is not None:
        unsolved = torch.where(stagnated, int(Status.STAGNATED), unsolved)
    code = torch.where(converged, int(Status.CONVERGED), unsolved)
    code = torch.where(breakdown, int(Status.BREAKDOWN), code)
    return torch.where(finite, code, int(Status.NON_FINITE))
