"""The conjugate gradient iteration in plain torch."""

import torch
from torch import Tensor

from .._numbers import accumulator
from .state import BETA, GAMMA, NUM_ITER, SCALE, WORST_FALL, CGState


def partial_dot(a: Tensor, b: Tensor) -> Tensor:
    """Return partial sums [k >= 1] of the inner product of ``a`` [n] and ``b`` [n].

    They have the accumulation dtype, at least float32.
    """
    dtype = accumulator(a.dtype)
    return torch.dot(a.to(dtype), b.to(dtype)).reshape(1)


def _step(state: CGState, curvature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step length and two booleans: breakdown, and whether all numbers are finite."""
    if state.step is not None and state.step[0] is curvature:
        return state.step[1]
    gamma = state.values[GAMMA]
    total = curvature.sum()
    live = gamma > 0
    finite = state.finite & torch.isfinite(total)
    breakdown = state.breakdown | (live & (total <= 0))
    moves = live & finite & ~breakdown
    found = torch.where(moves, gamma / total, 0), breakdown, finite
    state.step = curvature, found
    return found


def _add(vector: Tensor, image: Tensor, factor: Tensor, out: Tensor, value: int = 1) -> None:
    if vector.dtype == factor.dtype:
        torch.addcmul(vector, image, factor, value=value, out=out)
    else:
        # Rounding the factor to half precision would cause the same relative error in all entries.
        wide = image.to(factor.dtype)
        out.copy_(vector.to(factor.dtype).addcmul_(wide, factor, value=value))


def cg_update_(
    x: Tensor,
    y: Tensor | None,
    r: Tensor | None,
    p: Tensor,
    t: Tensor | None,
    q: Tensor | None,
    curvature: Tensor,
    state: CGState,
    source: Tensor | None = None,
) -> Tensor | None:
    """Advance the iterates: ``x += s alpha p``, ``y += s alpha t``, ``r -= alpha q``, in place.

    ``alpha = gamma / (p . q)`` is computed on the device. It is zero for a frozen system, one that
    is solved or has failed, so its iterates do not change. ``s`` is the unit of residual and
    direction.

    Args:
        x: [n] iterate. Modified.
        y: [m] coupled iterate, or None. Modified.
        r: [n] residual, or None if it is no longer needed. Modified.
        p: [n] direction.
        t: [m] image of ``p`` in the coupled space, None if ``y`` is None.
        q: [n] product of the operator with ``p``, None if ``r`` is None.
        curvature: [k] partial sums of ``p . q``.
        state: scalars of the iteration. Not modified.
        source: [n] the current residual, if it is not in ``r``: in the first iteration it is ``p``.

    Returns:
        Partial sums [k >= 1] of ``r . r``, or None without ``r``.
    """
    alpha, _, _ = _step(state, curvature)
    length = alpha * state.values[SCALE]
    _add(x, p, length, out=x)
    if y is not None and t is not None:
        _add(y, t, length, out=y)
    if r is None or q is None:
        return None
    _add(r if source is None else source, q, alpha, out=r, value=-1)
    return partial_dot(r, r)


def cg_scalars_(state: CGState, curvature: Tensor, square: Tensor | None) -> None:
    """Update the scalars after an iteration: residual norm, flags, factor of the next direction.

    Args:
        state: scalars of the iteration. Modified.
        curvature: [k] as passed to :func:`cg_update_`.
        square: [k] as returned by :func:`cg_update_`. If None, use the predicted residual norm.
    """
    before, worst_fall = state.values[GAMMA], state.values[WORST_FALL]
    alpha, breakdown, finite = _step(state, curvature)
    moves = alpha > 0
    after = before * worst_fall if square is None else square.sum()
    # After a failure, keep the norm that belongs to the last good iterate.
    gamma = torch.where(moves, after, before)
    beta = torch.where(moves, gamma / before, 0)
    if square is not None:
        finite = finite & torch.isfinite(gamma)
        # With strong interaction (alpha < 0.5), one fall does not predict the next. The clamp is
        # for nearly solved systems, where rounding limits the fall.
        fall = torch.where(alpha >= 0.5, beta, torch.inf)
        worst_fall = torch.fmax(worst_fall, fall).clamp(min=0.01)
    num_iter, scale = state.values[NUM_ITER] + moves, state.values[SCALE]
    flags = breakdown.to(alpha.dtype), finite.to(alpha.dtype)
    state.step = None
    state.values = torch.stack([gamma, alpha, beta, worst_fall, *flags, num_iter, scale])


def cg_direction_(p: Tensor, r: Tensor, state: CGState) -> None:
    """Compute the next direction ``p = r + beta p``, in place. May skip a frozen system.

    Args:
        p: [n] direction. Modified.
        r: [n] residual.
        state: scalars of the iteration. Not modified.
    """
    beta = state.values[BETA]
    if p.dtype == beta.dtype:
        torch.addcmul(r, p, beta, out=p)
    else:
        p.copy_(torch.addcmul(r.to(beta.dtype), p.to(beta.dtype), beta))
