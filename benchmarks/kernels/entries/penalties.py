"""Entries of the penalty kernels."""

from functools import partial
from typing import Any

import torch
import triton.language as tl

from benchmarks.kernels.registry import Entry, Operation
from compopt.kernels.penalties import reference
from compopt.kernels.penalties import triton as implementation
from compopt.kernels.penalties.triton import gram_product_kernel, gram_strip_kernel

_COLS = 4608
"""Of a convolution with kernels 3 x 3 from 512 channels."""


def _weight(size: int, device: torch.device) -> torch.Tensor:
    return torch.randn(size, min(_COLS, 32 * size), device=device)


def _diversity(precision: str) -> Operation:
    def inputs(size: int, device: torch.device) -> tuple[Any, ...]:
        return _weight(size, device), 0.1, 0.1

    launcher = partial(implementation.diversity_forward, precision=precision)
    return Operation(launcher, reference.diversity_forward, inputs)


def _product_inputs(size: int, device: torch.device) -> tuple[Any, ...]:
    weight = _weight(size, device)
    return weight, torch.randn(weight.shape[1], 16, device=device)


def _entry(name: str, kind: str, inner: int, precision: str, **options: Any) -> Entry:
    kernel = gram_strip_kernel
    pointers = {"weight_ptr": kind, "inverse_ptr": "*fp32", "strip_ptr": "*fp32"}
    counts = dict.fromkeys(("first_row", "num_strip_rows", "num_rows", "num_cols"), "i32")
    return Entry(
        name=name,
        kernel=kernel,
        signature={
            **pointers,
            **{"partial_ptr": "*fp32", **counts, "tau_pos": "fp64", "tau_neg": "fp64"},
        },
        constexprs={
            **{"STORE": False, "ROWS": 64, "COLS": 64, "INNER": inner},
            **{"PRECISION": precision, "ACC": tl.float32},
        },
        # n = size rows of 4608 entries; each tile of 64 rows is read once for each other.
        bytes_moved=lambda size: 4.0 * _COLS * size * size / 64,
        torch_bytes=lambda size: 4.0 * (_COLS * size * 3 + 5.0 * size * size),
        flops=lambda size: float(_COLS) * size * size,
        size=1024,
        size_means=f"rows of {_COLS}",
        divisible=("num_rows", "num_cols"),
        **options,
    )


_PRODUCT = Entry(
    name="gram product",
    kernel=gram_product_kernel,
    signature={
        **dict.fromkeys(("weight_ptr", "block_ptr", "out_ptr", "partial_ptr"), "*fp32"),
        **dict.fromkeys(("num_rows", "num_inner", "num_cols", "row_stride"), "i32"),
    },
    constexprs={
        **{"inner_stride": 1, "ROWS": 64, "COLS": 16, "INNER": 16},
        **{"PRECISION": "ieee", "ACC": tl.float32},
    },
    bytes_moved=lambda size: 4.0 * size * _COLS,
    torch_bytes=lambda size: 4.0 * size * (_COLS + 3 * 16),
    flops=lambda size: 2.0 * size * _COLS * 16,
    size=1024,
    size_means=f"rows of {_COLS}",
    divisible=("num_inner", "num_cols", "row_stride"),
    operation=Operation(implementation.gram_product, reference.gram_product, _product_inputs),
)

ENTRIES = (
    _entry("gram strip bf16", "*bf16", 64, "ieee", matrix_unit=True),
    _entry(
        "gram strip tf32",
        "*fp32",
        32,
        "tf32",
        matrix_unit=True,
        operation=_diversity("tf32"),
    ),
    _entry("gram strip tf32x3", "*fp32", 16, "tf32x3", skipped={"gfx942": "no tf32x3"}),
    _entry("gram strip fp32", "*fp32", 16, "ieee", operation=_diversity("ieee")),
    _PRODUCT,
)
