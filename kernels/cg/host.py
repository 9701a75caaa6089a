"""The conjugate gradient iteration in plain torch, with its scalars on the host.

On the CPU, reading a number costs nothing, but an operation on a tensor of one entry takes as long
as one on a short vector. The functions are those of `reference.py`, with Python numbers.
"""

import math

import torch
from torch import Tensor

from .._numbers import within


class CGState:
    """The scalars of :class:`.state.CGState` as Python numbers.

    Attributes:
        gamma: squared residual norm.
        alpha: step length of the last iteration, zero for a frozen system.
        beta: direction factor of the last iteration.
        worst_fall: largest factor by which an iteration has changed ``gamma``; NaN before the
            first.
        breakdown: whether a direction had non-positive curvature.
        finite: whether residuals and curvatures were all finite.
        scale: unit of residual and direction.
    """

    def __init__(self, gamma: float, scale: float = 1.0) -> None:
        self.gamma = gamma
        self.alpha = self.beta = 0.0
        self.worst_fall = math.nan
        self.breakdown = False
        self.finite = math.isfinite(gamma)
        self.scale = scale

    @property
    def next_gamma(self) -> float:
        """Predicted squared residual norm after one more iteration; NaN before the first."""
        return self.gamma * self.worst_fall


def cg_update_(
    x: Tensor,
    y: Tensor | None,
    r: Tensor | None,
    p: Tensor,
    t: Tensor | None,
    q: Tensor | None,
    curvature: float,
    state: CGState,
    source: Tensor | None = None,
) -> Tensor | None:
    """As :func:`.reference.cg_update_`, with the curvature as one number. Also set ``alpha``.

    The iterates of a frozen system cost nothing.
    """
    state.finite = state.finite and math.isfinite(curvature)
    state.breakdown = state.breakdown or (state.gamma > 0 and curvature <= 0)
    moves = state.gamma > 0 and state.finite and not state.breakdown
    alpha = state.alpha = state.gamma / curvature if moves else 0.0
    if moves:
        length = within(alpha * state.scale, x.dtype)
        x.add_(p, alpha=length)
        if y is not None and t is not None:
            y.add_(t, alpha=length)
    if r is None or q is None:
        return None
    torch.add(r if source is None else source, q, alpha=-within(alpha, x.dtype), out=r)
    return torch.dot(r, r)


def cg_scalars_(state: CGState, curvature: float, square: float | None) -> None:
    """As :func:`.reference.cg_scalars_`, with sums instead of partial sums."""
    before, moves = state.gamma, state.alpha > 0
    after = before * state.worst_fall if square is None else square
    # After a failure, keep the norm that belongs to the last good iterate.
    gamma = state.gamma = after if moves else before
    beta = state.beta = gamma / before if moves else 0.0
    if square is not None:
        state.finite = state.finite and math.isfinite(gamma)
        fall = beta if state.alpha >= 0.5 else math.inf
        # With NaN, before the first iteration, the comparison is false.
        worst_fall = state.worst_fall if state.worst_fall > fall else fall
        state.worst_fall = max(worst_fall, 0.01)


def cg_direction_(p: Tensor, r: Tensor, state: CGState) -> None:
    """As :func:`.reference.cg_direction_`."""
    torch.add(r, p, alpha=within(state.beta, p.dtype), out=p)
