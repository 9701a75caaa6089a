"""Entries of batch and layer normalization."""

from collections.abc import Callable
from typing import Any

import torch
import triton.language as tl

from benchmarks.kernels.registry import Entry, Operation, per_element
from compopt.kernels.batch_norm import reference as batch_norm
from compopt.kernels.batch_norm import triton as batch_norm_triton
from compopt.kernels.batch_norm.kernels import (
    CURVATURE,
    GRADIENT,
    TANGENT,
    channel_sums_kernel,
    derivative_kernel,
    normalize_kernel,
)
from compopt.kernels.layer_norm import reference as layer_norm
from compopt.kernels.layer_norm import triton as layer_norm_triton
from compopt.kernels.layer_norm.triton import layer_norm_kernel

Inputs = Callable[[int, torch.device], tuple[Any, ...]]

_SLOPE = 0.2


def _batch(size: int, device: torch.device, count: int, *, by_column: bool) -> list[torch.Tensor]:
    """Return images of 64 channels, 32 x 32 pixels at large sizes, and per-channel vectors."""
    side = 32 if size >> 16 else 8
    shape = max(size // (64 * side * side), 2), 64, side, side
    layout = torch.channels_last if by_column else torch.contiguous_format
    images = [torch.randn(shape, device=device).contiguous(memory_format=layout)]
    images += [torch.randn_like(images[0]) for _ in range(count - 1)]
    return [*images, *(torch.rand(64, device=device) for _ in range(6))]


def _batch_norm(what: str, num_passes: int, *, by_column: bool) -> Operation:
    def inputs(size: int, device: torch.device) -> tuple[Any, ...]:
        v, grad, x, y, *vectors = _batch(size, device, 4, by_column=by_column)
        weight, mean, invstd, v_weight, v_bias, total = vectors
        saved = batch_norm.BatchNormSaved(x, y, weight, mean, invstd, _SLOPE)
        if what == "forward":
            return x, weight, total, mean, invstd, 0.1, 1e-5, _SLOPE
        if what == "backward":
            return grad, saved
        if what == "tangent":
            return v, v_weight, v_bias, saved
        return v, v_weight, torch.stack([total, v_bias]), grad, total, v_bias, saved

    name = f"batch_norm_{what}"
    launcher, reference = getattr(batch_norm_triton, name), getattr(batch_norm, name)
    # Bytes of both launches.
    return Operation(launcher, reference, inputs, per_element(4 * num_passes))


def _layer_norm(what: str) -> Operation:
    def inputs(size: int, device: torch.device) -> tuple[Any, ...]:
        shape = max(size >> 10, 1), 1024
        v, grad, x, projected = (torch.randn(shape, device=device) for _ in range(4))
        weight, bias, v_weight = (torch.randn(1024, device=device) for _ in range(3))
        mean, invstd = (torch.rand(shape[0], 1, device=device) for _ in range(2))
        saved = layer_norm.LayerNormSaved(x, weight, mean, invstd, 1)
        if what == "forward":
            return x, weight, bias, 1, 1e-5
        if what == "backward":
            return grad, saved
        if what == "tangent":
            return v, v_weight, bias, saved
        return v, v_weight, projected, grad, saved

    name = f"layer_norm_{what}"
    return Operation(getattr(layer_norm_triton, name), getattr(layer_norm, name), inputs)


_SIZES = dict.fromkeys(
    ("num_rows", "num_cols", "row_stride", "num_channels", "rows_per_split"), "i32"
)
_FLOAT = "*fp32"


def _bn_entry(
    name: str,
    kernel: Any,
    tensors: int,
    torch_passes: int,
    timed: tuple[str, int] | None = None,
    **modes: Any,
) -> Entry:
    by_column = modes.pop("BY_COLUMN", False)
    constexprs = {
        **{"MASK_A": False, "MASK_B": False, "MOMENTS": False, "KIND": GRADIENT},
        **{"AFFINE": True, "RUNNING": True, "MASKED": True, "SPLITS": 16},
        **{"ROWS": 16 if by_column else 4, "COLS": 64 if by_column else 256},
        **{"ACC": tl.float32, "BY_COLUMN": by_column, **modes},
    }
    constexprs = {key: value for key, value in constexprs.items() if key in kernel.arg_names}
    scalars = ("slope", "unbiased", "momentum", "one_minus_momentum", "eps")
    signature = {key: _FLOAT for key in kernel.arg_names if key.endswith("_ptr")}
    signature |= {key: "fp64" for key in kernel.arg_names if key in scalars}
    signature |= {key: "i32" for key in kernel.arg_names if key in (*_SIZES, "size")}
    return Entry(
        name=name + (" channels last" if by_column else ""),
        kernel=kernel,
        signature=signature,
        constexprs=constexprs,
        bytes_moved=lambda size: 4.0 * tensors * size,
        torch_bytes=lambda size: 4.0 * torch_passes * size,
        flops=lambda size: 12.0 * size,
        size=1 << 24,
        divisible=("num_cols", "row_stride"),
        operation=None if timed is None else _batch_norm(*timed, by_column=by_column),
    )


def _bn_entries(*, by_column: bool) -> tuple[Entry, ...]:
    at: Any = {"BY_COLUMN": by_column}
    sums, combine = channel_sums_kernel, derivative_kernel
    return (
        _bn_entry("bn sums moments", sums, 1, 2, MOMENTS=True, **at),
        _bn_entry("bn normalize", normalize_kernel, 2, 4, ("forward", 3), **at),
        _bn_entry("bn sums gradient", sums, 3, 5, MASK_A=True, **at),
        _bn_entry("bn gradient", combine, 4, 3, ("backward", 7), **at),
        _bn_entry("bn sums tangent", sums, 2, 6, **at),
        _bn_entry("bn tangent", combine, 4, 20, ("tangent", 6), KIND=TANGENT, **at),
        _bn_entry("bn sums curvature", sums, 3, 6, MASK_B=True, **at),
        _bn_entry("bn curvature", combine, 5, 40, ("curvature", 8), KIND=CURVATURE, **at),
    )


def _ln_entry(name: str, kind: Any, what: str, tensors: int, torch_passes: int) -> Entry:
    pointers = [key for key in layer_norm_kernel.arg_names if key.endswith("_ptr")]
    counts = dict.fromkeys(("num_rows", "num_cols", "rows_per_program"), "i32")
    return Entry(
        name=f"layer norm {name}",
        kernel=layer_norm_kernel,
        signature={**dict.fromkeys(pointers, "*fp32"), **counts, "eps": "fp64"},
        constexprs={"KIND": kind, "AFFINE": True, "BLOCK": 1024, "ACC": tl.float32},
        bytes_moved=lambda size: 4.0 * tensors * size,
        torch_bytes=lambda size: 4.0 * torch_passes * size,
        flops=lambda size: 20.0 * size,
        size=1 << 24,
        divisible=("num_cols",),
        operation=_layer_norm(what),
    )


_LAYER_NORM = (
    _ln_entry("forward", layer_norm_triton.FORWARD, "forward", 2, 2),
    _ln_entry("gradient", layer_norm_triton.GRADIENT, "backward", 3, 6),
    _ln_entry("tangent", layer_norm_triton.TANGENT, "tangent", 4, 30),
    _ln_entry("curvature", layer_norm_triton.CURVATURE, "curvature", 5, 30),
)

ENTRIES = (*_bn_entries(by_column=False), *_bn_entries(by_column=True), *_LAYER_NORM)
