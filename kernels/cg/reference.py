"""The conjugate gradient iteration in plain torch."""

import torch
from torch import Tensor

from .._numbers import accumulator
from .state import BETA, GAMMA, NUM_ITER, SCALE, WORST_FALL, CGState


def partial_dot(a: Tensor, b: Tensor) -> Tensor:
    """Return numbers [k >= 1] whose sum is the inner product of ``a`` [n] and ``b`` [n].

    They are of the accumulation dtype: at least float32.
    """
    dtype = accumulator(a.dtype)
    return torch.dot(a.to(dtype), b.to(dtype)).reshape(1)


def _step(state: CGState, curvature: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the step length and the flags, of breakdown and of finite numbers, as booleans."""
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
        # A factor that is rounded to half precision would spoil every entry alike.
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

    ``alpha = gamma / (p . q)`` is formed on the device, and zero for a system that is frozen: one
    that is solved or has failed. Its iterates and its direction stay as they are. ``s`` is the unit
    of residual and direction.

    Args:
        x: [n] iterate. Modified.
        y: [m] coupled iterate, or None. Modified.
        r: [n] residual, or None if it is not needed any more. Modified.
        p: [n] direction.
        t: [m] image of ``p`` in the coupled space, None if ``y`` is.
        q: [n] product of the operator with ``p``, None if ``r`` is.
        curvature: [k] numbers whose sum is ``p . q``.
        state: of the iteration. Not modified.
        source: [n] the residual so far, if it is not in ``r``: before the first iteration it is
            ``p``.

    Returns:
        Numbers [k >= 1] whose sum is ``r . r``, or None without ``r``.
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
    """Take an iteration into account: its residual, its flags, the factor of the next direction.

    Args:
        state: of the iteration. Modified.
        curvature: [k] as :func:`cg_update_` got it.
        square: [k] as :func:`cg_update_` returned it. Without it the residual norm is the one to
            expect.
    """
    before, worst_fall = state.values[GAMMA], state.values[WORST_FALL]
    alpha, breakdown, finite = _step(state, curvature)
    moves = alpha > 0
    after = before * worst_fall if square is None else square.sum()
    # After a failure the last good norm is kept, beside the last good iterate.
    gamma = torch.where(moves, after, before)
    beta = torch.where(moves, gamma / before, 0)
    if square is not None:
        finite = finite & torch.isfinite(gamma)
        # Where the interaction is strong one fall says nothing about the next, and a system that
        # is as good as solved gets no better than rounding allows.
        fall = torch.where(alpha >= 0.5, beta, torch.inf)
        worst_fall = torch.fmax(worst_fall, fall).clamp(min=0.01)
    num_iter, scale = state.values[NUM_ITER] + moves, state.values[SCALE]
    flags = breakdown.to(alpha.dtype), finite.to(alpha.dtype)
    state.step = None
    state.values = torch.stack([gamma, alpha, beta, worst_fall, *flags, num_iter, scale])


def cg_direction_(p: Tensor, r: Tensor, state: CGState) -> None:
    """Form the next direction ``p = r + beta p``, in place. That of a frozen system may stay.

    Args:
        p: [n] direction. Modified.
        r: [n] residual.
        state: of the iteration. Not modified.
    """
    beta = state.values[BETA]
    if p.dtype == beta.dtype:
        torch.addcmul(r, p, beta, out=p)
    else:
        p.copy_(torch.addcmul(r.to(beta.dtype), p.to(beta.dtype), beta))
