"""Entries of the linear layer's R-operator."""

import torch
import triton.language as tl
from torch import Tensor

from benchmarks.kernels.registry import Entry, Operation
from compopt.kernels.linear import reference
from compopt.kernels.linear.triton import linear_tangent, linear_tangent_kernel, tile_for


def _inputs(size: int, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.randn(size, size, device=device) for _ in range(4))


def _entry(name: str, dtype: torch.dtype, precision: str, size: int = 4096) -> Entry:
    kind, width = {torch.bfloat16: ("*bf16", 2), torch.float16: ("*fp16", 2)}.get(
        dtype, ("*fp32", 4)
    )
    tile = tile_for(dtype, precision, size, size)
    pointers = [name for name in linear_tangent_kernel.arg_names if name.endswith("_ptr")]
    counts = ("num_rows", "num_cols", "num_inner")
    timed = precision == "ieee" and dtype == torch.float32
    return Entry(
        name=f"linear tangent {name}",
        kernel=linear_tangent_kernel,
        signature={**dict.fromkeys(pointers, kind), **dict.fromkeys(counts, "i32")},
        constexprs={
            **{"HAS_BIAS": True, "ROWS": tile.rows, "COLS": tile.cols, "INNER": tile.inner},
            **{"PRECISION": precision, "ACC": tl.float32},
        },
        bytes_moved=lambda n: 5.0 * width * n * n,
        # The second product reads the result of the first.
        torch_bytes=lambda n: 7.0 * width * n * n,
        flops=lambda n: 4.0 * n**3,
        size=size,
        size_means="rows, columns and inner length",
        divisible=counts,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        matrix_unit=precision != "ieee" or dtype != torch.float32,
        skipped={"gfx942": "no tf32x3"} if precision == "tf32x3" else {},
        operation=Operation(linear_tangent, reference.linear_tangent, _inputs) if timed else None,
    )


ENTRIES = (
    _entry("bf16", torch.bfloat16, "ieee"),
    _entry("fp16", torch.float16, "ieee"),
    _entry("bf16 small", torch.bfloat16, "ieee", 256),
    _entry("tf32", torch.float32, "tf32"),
    _entry("tf32x3", torch.float32, "tf32x3"),
    _entry("fp32", torch.float32, "ieee"),
)
