"""The conjugate gradient iteration in Triton: two vector kernels and a scalar one.

An iteration is ``cg_update_`` (x, y and r, with partial sums of r . r), ``cg_scalars_`` (one
program) and ``cg_direction_``, one launch each. Each program of the first adds up all partial sums
of the curvature, in the same order, so the step length needs no launch of its own. Sums are taken
within blocks, then over programs, in an order that depends only on the length: results are bitwise
reproducible.
"""

import triton
import triton.language as tl
from torch import Tensor

from .._blocks import (
    MAX_PROGRAMS,
    OPTIONS,
    block_size,
    is_finite,
    lanes,
    load,
    new_partials,
    num_programs,
    store,
    sum_partials,
    triton_dtype,
)
from .._jit import kernel
from .._numbers import accumulator
from .state import CGState


@kernel
def partial_dot_kernel(
    a_ptr, b_ptr, partial_ptr, n, num_blocks, ACC: tl.constexpr, BLOCK: tl.constexpr
):
    """Write each program's part of ``a . b``, [num_programs] in ``ACC``."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    total = tl.zeros([BLOCK], ACC)
    for block in range(program, num_blocks, programs):
        at = lanes(block, BLOCK)
        total += load(a_ptr, at, n, False, ACC) * load(b_ptr, at, n, False, ACC)
    if program == num_blocks % programs:
        at = lanes(num_blocks, BLOCK)
        total += load(a_ptr, at, n, True, ACC) * load(b_ptr, at, n, True, ACC)
    tl.store(partial_ptr + program, tl.sum(total))


@triton.jit
def _step(state_ptr, curvature_ptr, num_curvature, ACC: tl.constexpr, MAX_PROGRAMS: tl.constexpr):
    gamma = tl.load(state_ptr)
    total = sum_partials(curvature_ptr, num_curvature, ACC, MAX_PROGRAMS)
    live = gamma > 0
    finite = (tl.load(state_ptr + 5) > 0) & is_finite(total)
    breakdown = (tl.load(state_ptr + 4) > 0) | (live & (total <= 0))
    moves = live & finite & (breakdown == 0)
    alpha = tl.where(moves, gamma / total, 0.0)
    return alpha, breakdown, finite


@triton.jit
def _advance(ptr, source_ptr, image_ptr, at, alpha, n, MASKED: tl.constexpr, ACC: tl.constexpr):
    new = load(source_ptr, at, n, MASKED, ACC) + alpha * load(image_ptr, at, n, MASKED, ACC)
    store(ptr, at, new, n, MASKED)
    # Return the value as rounded by the store: the norm must be that of the stored vector.
    return new.to(ptr.dtype.element_ty).to(ACC)


# The counts may differ between warm-up and capture, and a capture cannot load another variant.
@kernel(do_not_specialize=("num_curvature",))
def cg_update_kernel(
    x_ptr,
    y_ptr,
    r_ptr,
    p_ptr,
    t_ptr,
    q_ptr,
    source_ptr,
    curvature_ptr,
    state_ptr,
    partial_ptr,
    n,
    m,
    num_blocks,
    num_inner_blocks,
    num_curvature,
    HAS_Y: tl.constexpr,
    HAS_R: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
    MAX_PROGRAMS: tl.constexpr,
):
    """Advance x [n], r [n] and y [m]; write each program's part of r . r in ``ACC``."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    alpha, _, _ = _step(state_ptr, curvature_ptr, num_curvature, ACC, MAX_PROGRAMS)
    length = alpha * tl.load(state_ptr + 7)
    total = tl.zeros([BLOCK], ACC)
    if alpha != 0:
        for block in range(program, num_blocks, programs):
            at = lanes(block, BLOCK)
            _advance(x_ptr, x_ptr, p_ptr, at, length, n, False, ACC)
            if HAS_R:
                r = _advance(r_ptr, source_ptr, q_ptr, at, -alpha, n, False, ACC)
                total += r * r
        if program == num_blocks % programs:
            at = lanes(num_blocks, BLOCK)
            _advance(x_ptr, x_ptr, p_ptr, at, length, n, True, ACC)
            if HAS_R:
                r = _advance(r_ptr, source_ptr, q_ptr, at, -alpha, n, True, ACC)
                total += r * r
        if HAS_Y:
            for block in range(program, num_inner_blocks, programs):
                _advance(y_ptr, y_ptr, t_ptr, lanes(block, BLOCK), length, m, False, ACC)
            if program == num_inner_blocks % programs:
                at = lanes(num_inner_blocks, BLOCK)
                _advance(y_ptr, y_ptr, t_ptr, at, length, m, True, ACC)
    if HAS_R:
        tl.store(partial_ptr + program, tl.sum(total))


@kernel(do_not_specialize=("num_curvature", "num_square"))
def cg_scalars_kernel(
    state_ptr,
    curvature_ptr,
    square_ptr,
    num_curvature,
    num_square,
    HAS_SQUARE: tl.constexpr,
    ACC: tl.constexpr,
    MAX_PROGRAMS: tl.constexpr,
):
    """Update the state [8] of an iteration. One program."""
    before = tl.load(state_ptr)
    worst_fall = tl.load(state_ptr + 3)
    num_iter = tl.load(state_ptr + 6)
    alpha, breakdown, finite = _step(state_ptr, curvature_ptr, num_curvature, ACC, MAX_PROGRAMS)
    moves = alpha > 0
    if HAS_SQUARE:
        after = sum_partials(square_ptr, num_square, ACC, MAX_PROGRAMS)
    else:
        after = before * worst_fall
    gamma = tl.where(moves, after, before)
    beta = tl.where(moves, gamma / before, 0.0)
    if HAS_SQUARE:
        finite = finite & is_finite(gamma)
        fall = tl.where(alpha >= 0.5, beta, float("inf"))
        # As `fmax`, which ignores NaN.
        larger = tl.where(fall > worst_fall, fall, worst_fall)
        larger = tl.where(worst_fall == worst_fall, larger, fall)
        worst_fall = tl.where(larger < 0.01, 0.01, larger)
    tl.store(state_ptr, gamma)
    tl.store(state_ptr + 1, alpha)
    tl.store(state_ptr + 2, beta)
    tl.store(state_ptr + 3, worst_fall)
    tl.store(state_ptr + 4, breakdown.to(ACC))
    tl.store(state_ptr + 5, finite.to(ACC))
    tl.store(state_ptr + 6, num_iter + moves.to(ACC))


@kernel
def cg_direction_kernel(
    p_ptr, r_ptr, state_ptr, n, num_blocks, ACC: tl.constexpr, BLOCK: tl.constexpr
):
    """Write ``r + beta p`` to p [n]; beta is read from the state [8]."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    beta = tl.load(state_ptr + 2)
    # Skip a frozen system: its residual may never have been written.
    if tl.load(state_ptr + 1) != 0:
        for block in range(program, num_blocks, programs):
            at = lanes(block, BLOCK)
            new = load(r_ptr, at, n, False, ACC) + beta * load(p_ptr, at, n, False, ACC)
            store(p_ptr, at, new, n, False)
        if program == num_blocks % programs:
            at = lanes(num_blocks, BLOCK)
            new = load(r_ptr, at, n, True, ACC) + beta * load(p_ptr, at, n, True, ACC)
            store(p_ptr, at, new, n, True)


def partial_dot(a: Tensor, b: Tensor) -> Tensor:
    n, block = a.numel(), block_size(a.dtype)
    programs = num_programs(block, n)
    partials = new_partials(programs, a)
    acc = triton_dtype(partials.dtype)
    partial_dot_kernel[(programs,)](a, b, partials, n, n // block, acc, block, **OPTIONS)
    return partials


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
    n, m = x.numel(), 0 if y is None else y.numel()
    block = block_size(x.dtype)
    programs = num_programs(block, n, m)
    partials = None if r is None else new_partials(programs, x)
    cg_update_kernel[(programs,)](
        x,
        y,
        r,
        p,
        t,
        q,
        r if source is None else source,
        curvature,
        state.values,
        partials,
        n,
        m,
        n // block,
        m // block,
        curvature.numel(),
        y is not None,
        r is not None,
        triton_dtype(accumulator(x.dtype)),
        block,
        MAX_PROGRAMS,
        **OPTIONS,
    )
    return partials


def cg_scalars_(state: CGState, curvature: Tensor, square: Tensor | None) -> None:
    cg_scalars_kernel[(1,)](
        state.values,
        curvature,
        square,
        curvature.numel(),
        0 if square is None else square.numel(),
        square is not None,
        triton_dtype(state.values.dtype),
        MAX_PROGRAMS,
        **OPTIONS,
    )


def cg_direction_(p: Tensor, r: Tensor, state: CGState) -> None:
    n, block = p.numel(), block_size(p.dtype)
    acc = triton_dtype(accumulator(p.dtype))
    cg_direction_kernel[(num_programs(block, n),)](
        p, r, state.values, n, n // block, acc, block, **OPTIONS
    )
