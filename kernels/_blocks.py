"""Helpers of the vector kernels: loads, stores and sums of a block, and the shape of a launch.

A vector is divided into blocks, which the programs of a launch take in turns. Full blocks use no
mask, so that their loads are 16 bytes wide for any length; the remainder is a separate, masked
block.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._backend import UnsupportedError, has_wide_products
from ._numbers import accumulator

MAX_PROGRAMS = 1024
"""Maximum number of programs, and so of partial sums, which every program can then add up."""

OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}

_TRITON_DTYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}


def triton_dtype(dtype: torch.dtype) -> tl.dtype:
    """Return the Triton dtype for a floating-point dtype of torch."""
    return _TRITON_DTYPES[dtype]


def require_products(dtype: torch.dtype) -> None:
    """Fall back to torch if this release of Triton cannot multiply matrices of ``dtype``."""
    if dtype == torch.float64 and not has_wide_products():
        raise UnsupportedError("Triton multiplies float64 matrices from 3.5 on.")


def block_size(dtype: torch.dtype) -> int:
    """Return the number of elements per block: at least 16 bytes for each of up to 256 threads."""
    return 2048 if dtype.itemsize == 2 else 1024


def num_programs(block: int, *lengths: int) -> int:
    """Return the number of programs for vectors of these lengths, in blocks of ``block``."""
    return max(1, min(MAX_PROGRAMS, -(-max(lengths) // block)))


def new_partials(count: int, vector: Tensor) -> Tensor:
    """Return memory for ``count`` partial sums over vectors like ``vector``."""
    return torch.empty(count, dtype=accumulator(vector.dtype), device=vector.device)


@triton.jit
def lanes(block, BLOCK: tl.constexpr):
    """Return the 64-bit offsets of a block."""
    return tl.cast(block, tl.int64) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def load(ptr, at, n, MASKED: tl.constexpr, ACC: tl.constexpr):
    """Load in the accumulation dtype, with zeros past the end."""
    if MASKED:
        value = tl.load(ptr + at, mask=at < n, other=0.0)
    else:
        value = tl.load(ptr + at)
    return value.to(ACC)


@triton.jit
def store(ptr, at, value, n, MASKED: tl.constexpr):
    """Store in the dtype of the vector."""
    value = value.to(ptr.dtype.element_ty)
    if MASKED:
        tl.store(ptr + at, value, mask=at < n)
    else:
        tl.store(ptr + at, value)


@triton.jit
def sum_partials(ptr, count, ACC: tl.constexpr, MAX_PROGRAMS: tl.constexpr):
    """Add partial sums, in the same order in every program."""
    at = tl.arange(0, MAX_PROGRAMS)
    return tl.sum(tl.load(ptr + at, mask=at < count, other=0.0).to(ACC))


@triton.jit
def is_finite(value):
    """Return True if a number is neither NaN nor infinite."""
    return value - value == 0


@triton.jit
def ieee_sqrt(value, ACC: tl.constexpr):
    """Return the correctly rounded square root; the fast one flushes denormals to zero."""
    if ACC == tl.float64:
        root = tl.sqrt(value)
    else:
        root = tl.sqrt_rn(value)
    return root


@triton.jit
def ieee_divide(value, divisor, ACC: tl.constexpr):
    """Return the correctly rounded quotient."""
    if ACC == tl.float64:
        quotient = value / divisor
    else:
        quotient = tl.div_rn(value, divisor)
    return quotient
