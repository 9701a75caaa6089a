"""The dtypes in which kernels compute."""

import math

import torch
from torch import Tensor


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums over tensors of a floating ``dtype``: at least float32."""
    return dtype if dtype.itemsize >= 4 else torch.float32


def within(number: float, dtype: torch.dtype) -> float:
    """Return a number >= 0 that ``dtype`` has: infinity for one that is larger."""
    return math.inf if number > torch.finfo(dtype).max else number


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the tensors in their accumulator: a sum of terms is then rounded once."""
    return tuple(tensor.to(accumulator(tensor.dtype)) for tensor in tensors)
