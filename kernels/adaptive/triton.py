"""The set-up of an adaptive step in Triton: one launch per player.

Roots and quotients are correctly rounded: the fast root returns zero for an average below 1.2e-38.
Scalars are passed in float64 (in float32 before Triton 3.4) and rounded to the accumulation dtype;
``1 - beta`` is computed on the host, where it loses no digits.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

from .._blocks import (
    OPTIONS,
    block_size,
    ieee_divide,
    ieee_sqrt,
    lanes,
    load,
    num_programs,
    store,
    triton_dtype,
)
from .._jit import kernel
from .._numbers import accumulator


@triton.jit
def _set_up(
    average_ptr,
    grad_ptr,
    step_ptr,
    root_ptr,
    scaled_ptr,
    at,
    beta,
    one_minus_beta,
    rate,
    eps,
    n,
    HAS_ROOT: tl.constexpr,
    HAS_SCALED: tl.constexpr,
    NEGATIVE: tl.constexpr,
    MASKED: tl.constexpr,
    ACC: tl.constexpr,
):
    grad = load(grad_ptr, at, n, MASKED, ACC)
    average = beta * load(average_ptr, at, n, MASKED, ACC) + one_minus_beta * (grad * grad)
    factor = ieee_divide(rate, ieee_sqrt(average, ACC) + eps, ACC)
    store(step_ptr, at, factor, n, MASKED)
    if HAS_ROOT:
        factor = ieee_sqrt(factor, ACC)
        store(root_ptr, at, factor, n, MASKED)
    if HAS_SCALED:
        if NEGATIVE:
            factor = -factor
        store(scaled_ptr, at, factor * grad, n, MASKED)


@kernel
def adaptive_setup_kernel(
    average_ptr,
    grad_ptr,
    step_ptr,
    root_ptr,
    scaled_ptr,
    rate_ptr,
    num_steps_ptr,
    beta: tl.float64,
    one_minus_beta: tl.float64,
    log_beta: tl.float64,
    rate: tl.float64,
    eps: tl.float64,
    n,
    num_blocks,
    HAS_ROOT: tl.constexpr,
    HAS_SCALED: tl.constexpr,
    HAS_RATE: tl.constexpr,
    HAS_NUM_STEPS: tl.constexpr,
    NEGATIVE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write step sizes [n], their roots [n] and the scaled gradient [n]."""
    beta = tl.full([], beta, ACC)
    one_minus_beta = tl.full([], one_minus_beta, ACC)
    eps = tl.full([], eps, ACC)
    if HAS_RATE:
        rate_here = tl.load(rate_ptr).to(ACC)
    else:
        rate_here = tl.full([], rate, ACC)
    if HAS_NUM_STEPS:
        # In float64: 1 - beta^t cancels.
        power = tl.exp((tl.load(num_steps_ptr).to(tl.float64) + 1.0) * log_beta)
        rate_here = (rate_here.to(tl.float64) * tl.sqrt(1.0 - power)).to(ACC)
    program, programs = tl.program_id(0), tl.num_programs(0)
    for block in range(program, num_blocks, programs):
        _set_up(
            average_ptr,
            grad_ptr,
            step_ptr,
            root_ptr,
            scaled_ptr,
            lanes(block, BLOCK),
            beta,
            one_minus_beta,
            rate_here,
            eps,
            n,
            HAS_ROOT,
            HAS_SCALED,
            NEGATIVE,
            False,
            ACC,
        )
    if program == num_blocks % programs:
        _set_up(
            average_ptr,
            grad_ptr,
            step_ptr,
            root_ptr,
            scaled_ptr,
            lanes(num_blocks, BLOCK),
            beta,
            one_minus_beta,
            rate_here,
            eps,
            n,
            HAS_ROOT,
            HAS_SCALED,
            NEGATIVE,
            True,
            ACC,
        )


@triton.jit
def _average(
    average_ptr, grad_ptr, at, beta, one_minus_beta, n, MASKED: tl.constexpr, ACC: tl.constexpr
):
    grad = load(grad_ptr, at, n, MASKED, ACC)
    new = beta * load(average_ptr, at, n, MASKED, ACC) + one_minus_beta * (grad * grad)
    store(average_ptr, at, new, n, MASKED)


@kernel
def average_squares_kernel(
    average_ptr,
    grad_ptr,
    advance_ptr,
    beta: tl.float64,
    one_minus_beta: tl.float64,
    n,
    num_blocks,
    HAS_ADVANCE: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update the average [n] with the gradient [n]; not if the flag at ``advance_ptr`` is 0."""
    beta = tl.full([], beta, ACC)
    one_minus_beta = tl.full([], one_minus_beta, ACC)
    program, programs = tl.program_id(0), tl.num_programs(0)
    if HAS_ADVANCE:
        if tl.load(advance_ptr) == 0:
            return
    for block in range(program, num_blocks, programs):
        _average(average_ptr, grad_ptr, lanes(block, BLOCK), beta, one_minus_beta, n, False, ACC)
    if program == num_blocks % programs:
        _average(
            average_ptr, grad_ptr, lanes(num_blocks, BLOCK), beta, one_minus_beta, n, True, ACC
        )


def adaptive_setup_(
    average: Tensor,
    grad: Tensor,
    beta: float,
    rate: float | Tensor,
    eps: float,
    step_sizes: Tensor,
    root: Tensor | None = None,
    scaled: Tensor | None = None,
    sign: int = 1,
    num_steps: Tensor | None = None,
) -> None:
    n, block = grad.numel(), block_size(grad.dtype)
    on_device = isinstance(rate, Tensor) and rate.device == grad.device
    adaptive_setup_kernel[(num_programs(block, n),)](
        average,
        grad,
        step_sizes,
        root,
        scaled,
        rate if on_device else None,
        num_steps,
        beta,
        1 - beta,
        math.log(beta) if beta > 0 else -math.inf,
        0.0 if on_device else float(rate),
        float(eps),
        n,
        n // block,
        root is not None,
        scaled is not None,
        on_device,
        num_steps is not None,
        sign < 0,
        triton_dtype(accumulator(grad.dtype)),
        block,
        **OPTIONS,
    )


def average_squares_(
    average: Tensor, grad: Tensor, beta: float, advance: Tensor | None = None
) -> None:
    n, block = grad.numel(), block_size(grad.dtype)
    average_squares_kernel[(num_programs(block, n),)](
        average,
        grad,
        advance,
        beta,
        1 - beta,
        n,
        n // block,
        advance is not None,
        triton_dtype(accumulator(grad.dtype)),
        block,
        **OPTIONS,
    )
