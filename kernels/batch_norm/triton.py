"""Batch normalization in Triton.

Each derivative is two launches: sums per channel, then one pass that combines them. Reductions
have a fixed order.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .._blocks import triton_dtype
from .._numbers import accumulator
from .kernels import (
    CURVATURE,
    GRADIENT,
    TANGENT,
    channel_sums_kernel,
    derivative_kernel,
    normalize_kernel,
)
from .reference import BatchNormSaved

_PROGRAMS = 1024
"""Programs wanted in a launch: a few for each multiprocessor of the largest devices."""

_MAX_SPLITS = 64

_TILE = 1024
"""Entries that a program works on at once."""


class Geometry(NamedTuple):
    """Shape of a tensor as rows of adjacent entries, and their division among programs."""

    by_column: bool
    num_rows: int
    num_cols: int
    row_stride: int
    num_channels: int
    rows: int
    cols: int
    groups: int
    splits: int
    dtype: torch.dtype

    @staticmethod
    def of(x: Tensor) -> "Geometry":
        """Describe a dense tensor [N, C, ...], contiguous or channels-last."""
        num_channels = x.shape[1]
        inner = x.shape[2:].numel()
        by_column = inner == 1 or not x.is_contiguous()
        if by_column:
            num_rows, num_cols = x.shape[0] * inner, num_channels
            row_stride = num_channels
        else:
            num_rows, num_cols = x.shape[0], inner
            row_stride = num_channels * inner
        cols = min(max(triton.next_power_of_2(max(num_cols, 1)), 16), 64 if by_column else _TILE)
        rows = max(_TILE // cols, 1)
        groups = triton.cdiv(num_channels, cols) if by_column else num_channels
        wanted = min(triton.cdiv(_PROGRAMS, max(groups, 1)), _MAX_SPLITS)
        per_split = triton.cdiv(triton.cdiv(num_rows, wanted), rows) * rows
        # An empty tensor has one split, which adds up nothing.
        splits = triton.cdiv(num_rows, per_split) if num_rows else 1
        return Geometry(
            by_column,
            num_rows,
            num_cols,
            row_stride,
            num_channels,
            rows,
            cols,
            groups,
            splits,
            accumulator(x.dtype),
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Return the grid of a launch."""
        return self.groups, self.splits

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Return the kernel arguments that determine the rows of a program."""
        share = triton.cdiv(triton.cdiv(self.num_rows, self.splits), self.rows) * self.rows
        return self.num_rows, self.num_cols, self.row_stride, self.num_channels, share

    @property
    def constants(self) -> dict[str, Any]:
        """Return the compile-time constants."""
        shape = {"BY_COLUMN": self.by_column, "ROWS": self.rows, "COLS": self.cols}
        return {**shape, "ACC": triton_dtype(self.dtype)}


def _laid_out(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return dense tensors in one layout: that of ``x`` if ``x`` is dense."""
    channels_last = torch.channels_last
    if x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=channels_last):
        return x, *(t.contiguous(memory_format=channels_last) for t in others)
    return x.contiguous(), *(t.contiguous() for t in others)


def partial_sums(
    geometry: Geometry,
    a: Tensor,
    b: Tensor,
    y: Tensor,
    shift: Tensor,
    factor: Tensor,
    slope: float = 1.0,
    **modes: bool,
) -> Tensor:
    """Return partial sums [2, splits, C]; see :func:`~.kernels.channel_sums_kernel`."""
    partial = a.new_empty(2, geometry.splits, geometry.num_channels, dtype=geometry.dtype)
    flags = {"MASK_A": False, "MASK_B": False, "MOMENTS": False, **modes}
    channel_sums_kernel[geometry.grid](
        a, b, y, shift, factor, partial, *geometry.sizes, slope, **flags, **geometry.constants
    )
    return partial


def batch_norm_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    slope: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    (x,) = _laid_out(x)
    geometry = Geometry.of(x)
    partial = partial_sums(geometry, x, x, x, x, x, MOMENTS=True)
    y = torch.empty_like(x)
    mean, invstd = (partial.new_empty(geometry.num_channels) for _ in range(2))
    if weight is not None and bias is None:
        bias = torch.zeros_like(weight)
    if bias is not None and weight is None:
        weight = torch.ones_like(bias)
    size = x.numel() // geometry.num_channels
    normalize_kernel[geometry.grid](
        x,
        x if weight is None else weight,
        x if bias is None else bias,
        partial,
        y,
        mean,
        invstd,
        mean if running_mean is None else running_mean,
        mean if running_var is None else running_var,
        *geometry.sizes,
        slope,
        size,
        size / (size - 1),
        momentum,
        1 - momentum,
        eps,
        AFFINE=weight is not None,
        RUNNING=running_mean is not None,
        SPLITS=triton.next_power_of_2(geometry.splits),
        **geometry.constants,
    )
    return y, mean, invstd


def _derivative(
    kind: Any,
    geometry: Geometry,
    partial: Tensor,
    v: Tensor,
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor | None,
    vectors: tuple[Tensor, ...],
    slope: float,
) -> tuple[Tensor, Tensor]:
    """Launch the second kernel; ``vectors`` are mean, invstd, vw, vb, gw, gb and the sums."""
    out = torch.empty_like(x)
    sums = partial.new_empty(2, geometry.num_channels)
    derivative_kernel[geometry.grid](
        v,
        grad,
        x,
        y,
        x if weight is None else weight,
        *(vector.contiguous() for vector in vectors),
        partial,
        out,
        sums[0],
        sums[1],
        *geometry.sizes,
        slope,
        x.numel() // geometry.num_channels,
        KIND=kind,
        AFFINE=weight is not None,
        MASKED=slope != 1.0,
        SPLITS=triton.next_power_of_2(geometry.splits),
        **geometry.constants,
    )
    return out, sums


def batch_norm_backward(
    grad: Tensor,
    saved: BatchNormSaved,
) -> tuple[Tensor, Tensor, Tensor]:
    x, y, weight, mean, invstd, slope = saved
    x, y, grad = _laid_out(x, y, grad)
    geometry = Geometry.of(x)
    masked = slope != 1.0
    partial = partial_sums(geometry, grad, x, y, mean, invstd, slope, MASK_A=masked)
    vectors = mean, invstd, mean, mean, mean, mean, mean
    out, sums = _derivative(GRADIENT, geometry, partial, grad, x, x, y, weight, vectors, slope)
    return out, sums[1], sums[0]


def batch_norm_tangent(
    v: Tensor,
    v_weight: Tensor,
    v_bias: Tensor,
    saved: BatchNormSaved,
) -> tuple[Tensor, Tensor]:
    x, y, weight, mean, invstd, slope = saved
    x, y, v = _laid_out(x, y, v)
    geometry = Geometry.of(x)
    partial = partial_sums(geometry, v, x, y, mean, invstd)
    vectors = mean, invstd, v_weight, v_bias, mean, mean, mean
    return _derivative(TANGENT, geometry, partial, v, x, x, y, weight, vectors, slope)


def batch_norm_curvature(
    v: Tensor,
    v_weight: Tensor,
    sums: Tensor,
    grad: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    saved: BatchNormSaved,
) -> tuple[Tensor, Tensor]:
    x, y, weight, mean, invstd, slope = saved
    x, y, v, grad = _laid_out(x, y, v, grad)
    geometry = Geometry.of(x)
    if slope == 1.0:
        # MASK_B is still needed, as it keeps b from being normalized; for slope 1 it masks nothing.
        y = grad
    partial = partial_sums(geometry, v, grad, y, mean, invstd, slope, MASK_B=True)
    vectors = mean, invstd, v_weight, mean, grad_weight, grad_bias, sums
    out, extra = _derivative(CURVATURE, geometry, partial, v, grad, x, y, weight, vectors, slope)
    return out, extra[0]
