"""Numbers of any size and dtype: sums, exact scaling, norms that do not overflow.

Squares of numbers leave the range of a dtype long before the numbers do: in float32, those of
numbers above 1.8e19 and below 1e-23. So numbers are divided by a power of two before they are
squared. This is exact, so scaling a system does not change how it is solved.
"""

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor

Number: TypeAlias = float | Tensor
"""A number on the host, or a 0-dim tensor that is not read."""

_EXPONENTS = {
    torch.float32: (torch.int32, 0x7F80_0000),
    torch.float64: (torch.int64, 0x7FF0_0000_0000_0000),
}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums over tensors of a floating ``dtype``: at least float32."""
    return dtype if dtype.itemsize >= 4 else torch.float32


def within(number: float, dtype: torch.dtype) -> float:
    """Return a number >= 0, or infinity if it is too large for ``dtype``."""
    return math.inf if number > torch.finfo(dtype).max else number


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in their accumulation dtype, so that a sum of terms is rounded once."""
    return tuple(tensor.to(accumulator(tensor.dtype)) for tensor in tensors)


def size_of(vector: Tensor) -> Tensor:
    """Return the sum of magnitudes of ``vector`` [n], 0-dim, at least float32.

    It needs no squares, and the size of a vector is the sum of the sizes of its parts.
    """
    total: Tensor = torch.linalg.vector_norm(vector, 1, dtype=accumulator(vector.dtype))
    return total


FREE_TO_READ = {"cpu"}
"""Types of devices whose numbers the host can read at no cost.

There the scalars of a step are Python numbers: an operation on a tensor of one entry takes as long
as one on a short vector. On other devices they stay on the device.
"""


def is_free_to_read(device: torch.device) -> bool:
    """Return True if reading a number of ``device`` on the host costs nothing."""
    return device.type in FREE_TO_READ


def as_tensor(number: Number, dtype: torch.dtype) -> Tensor:
    """Return a number on the host as a 0-dim CPU tensor, and a tensor unchanged."""
    if isinstance(number, Tensor):
        return number
    return torch.full((), within(number, dtype), dtype=dtype, device="cpu")


def power_of_two(size: Any, dtype: torch.dtype | None = None) -> Any:
    """Return the largest power of two that is at most ``size`` >= 0.

    It is clamped to the powers that have a normal reciprocal, also for zero and infinity.

    Args:
        size: 0-dim tensor or a number on the host; the result is of the same kind.
        dtype: for a number on the host, the dtype in which the reciprocal must be normal.
    """
    if not isinstance(size, Tensor):
        assert dtype is not None
        smallest = torch.finfo(dtype).tiny
        if not size < 1 / smallest:
            return 1 / smallest
        return max(math.ldexp(0.5, math.frexp(size)[1]), smallest)
    whole_number, exponent_bits = _EXPONENTS[size.dtype]
    power = (size.view(whole_number) & exponent_bits).view(size.dtype)
    smallest = torch.finfo(size.dtype).tiny
    return power.clamp(smallest, 1 / smallest)


def divide(vector: Tensor, scale: Number, out: Tensor) -> Tensor:
    """Write ``vector / scale`` to ``out``, which may be ``vector`` itself."""
    if not isinstance(scale, Tensor) or vector.dtype == scale.dtype:
        return torch.div(vector, scale, out=out)
    # The scale may be out of the range of half precision.
    return out.copy_(vector.to(scale.dtype).div_(scale))


def norm_of_any_size(vector: Tensor) -> Tensor:
    """Return the Euclidean norm of ``vector``, 0-dim float64, finite if all entries are.

    Cost: a norm in float64. For a float64 ``vector``, two more passes and a new vector.
    """
    scale = None
    if vector.dtype == torch.float64:
        scale = power_of_two(size_of(vector))
        vector = vector / scale
    norm: Tensor = torch.linalg.vector_norm(vector, dtype=torch.float64)
    return norm.mul_(scale) if scale is not None else norm
