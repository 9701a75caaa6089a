"""What a linear solver is asked for and what it returns."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from compopt._checks import check_vector
from compopt.operators import CoupledOperator, LinearOperator


class Status(IntEnum):
    """Why a solver stopped. Members after ``MAX_ITER`` are failures."""

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
    """What a solver returns. Failure is a value here; the caller decides what to do about it.

    Attributes:
        value: [n] the last finite iterate. (With a fixed iteration count nothing is read on the
            way, and the value of a failed solve is unspecified.)
        coupled_value: [m] or None, the other half of a coupled solve, see :class:`Solver`.
        num_iter: iterations made; one iteration is one product with the operator.
        residual_norm: 0-dim, Euclidean norm of ``rhs - A @ value``, or what it was predicted to
            be; NaN where neither is known. That of conjugate gradients comes from their recursion,
            see :class:`~compopt.ConjugateGradient`.
        rhs_norm: 0-dim, norm of the right-hand side that ``rtol`` referred to.
        status_code: 0-dim integer, the :class:`Status` on the device.
        is_predicted: whether the last residual was predicted rather than computed.
        value_norm: 0-dim, Euclidean norm of ``value``, or None where the solver does not need it.
            Far more than ``rhs_norm``, it tells of a nearly singular operator.
    """

    value: Tensor
    coupled_value: Tensor | None
    num_iter: int
    residual_norm: Tensor
    rhs_norm: Tensor
    status_code: Tensor
    is_predicted: bool = False
    value_norm: Tensor | None = None

    @property
    def status(self) -> Status:
        """Why the solver stopped. Reading it synchronises with the device."""
        return Status(int(self.status_code))


class Solver(Protocol):
    """Solves a linear system that is known through products."""

    def solve(
        self,
        operator: LinearOperator,
        rhs: Tensor,
        x0: Tensor | None = None,
        *,
        coupled_rhs: Tensor | None = None,
        coupled_start: Tensor | None = None,
        overwrite_rhs: bool = False,
    ) -> Solution:
        """Solve ``operator @ x = rhs``, or the coupled system that the operator comes from.

        With ``coupled_rhs`` = c, for a :class:`~compopt.operators.CoupledOperator` I + F H G, solve

            x = rhs - F y,     y = H (c + G x)

        for both x (``value``) and y (``coupled_value``). Eliminating y gives
        ``(I + F H G) x = rhs - F H c``.

        Args:
            operator: [n, n].
            rhs: [n], of the operator's ``dtype`` and ``device``, as ``x0``. Of any size that the
                dtype holds: a multiple of a system is solved by the same iterations.
            x0: [n] first guess, zeros if None. Not modified.
            coupled_rhs: [m], m the operator's ``inner_size``, of its ``inner_dtype``. Not modified.
            coupled_start: [m] ``H c``, the y that belongs to x = 0, if it is known already. The
                solver may use its memory.
            overwrite_rhs: whether the solver may use the memory of ``rhs``, which is not modified
                otherwise.

        The result has no graph, whether or not what is given requires a gradient.
        """
        ...


def check_system(
    operator: LinearOperator,
    rhs: Tensor,
    x0: Tensor | None,
    coupled_rhs: Tensor | None,
    coupled_start: Tensor | None = None,
) -> None:
    """Raise unless the parts of a system fit together."""
    _check_part("rhs", rhs, operator.size, operator.dtype, operator.device)
    if x0 is not None:
        _check_part("x0", x0, operator.size, operator.dtype, operator.device)
    if coupled_rhs is not None:
        if not isinstance(operator, CoupledOperator):
            raise TypeError(
                "`coupled_rhs` needs a CoupledOperator, whose factor couples the two halves; "
                f"got {type(operator).__name__}."
            )
        inner = operator.inner_size, operator.inner_dtype, operator.device
        _check_part("coupled_rhs", coupled_rhs, *inner)
        if coupled_start is not None:
            _check_part("coupled_start", coupled_start, *inner)


def _check_part(
    name: str, vector: Tensor, size: int, dtype: torch.dtype, device: torch.device
) -> None:
    check_vector(name, vector, size)
    if vector.dtype != dtype or vector.device != device:
        raise ValueError(
            f"`{name}` must have the operator's dtype and device, {dtype} on {device}, got "
            f"{vector.dtype} on {vector.device}. Convert it: `{name}.to({str(device)!r}, {dtype})`."
        )


def status_code(
    converged: Tensor, breakdown: Tensor, finite: Tensor, stagnated: Tensor | None = None
) -> Tensor:
    """Combine 0-dim flags into a 0-dim :class:`Status` code, without reading them."""
    unsolved: int | Tensor = int(Status.MAX_ITER)
    if stagnated is not None:
        unsolved = torch.where(stagnated, int(Status.STAGNATED), unsolved)
    code = torch.where(converged, int(Status.CONVERGED), unsolved)
    code = torch.where(breakdown, int(Status.BREAKDOWN), code)
    return torch.where(finite, code, int(Status.NON_FINITE))
