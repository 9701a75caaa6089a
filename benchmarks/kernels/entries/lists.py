"""Entries of the kernels over lists of tensors."""

import torch
import triton.language as tl

from benchmarks.kernels.registry import Entry, Operation, per_element
from compopt.kernels.lists import reference
from compopt.kernels.lists.triton import (
    ALIGNMENT,
    BLOCK,
    gather,
    gather_kernel,
    scatter,
    scatter_kernel,
)

_WIDTHS = {"fp32": 4, "fp64": 8, "bf16": 2}
_DTYPES = {"fp32": tl.float32, "fp64": tl.float64, "bf16": tl.bfloat16}


def _shapes(size: int) -> list[torch.Size]:
    """Return the shapes of a network's parameters with about ``size`` elements."""
    width = max(1, int((size / 8) ** 0.5))
    return [torch.Size(shape) for _ in range(8) for shape in ((width, width), (width,))]


def _gather_inputs(size: int, device: torch.device) -> tuple[object, ...]:
    shapes = _shapes(size)
    tensors = [torch.randn(shape, device=device) for shape in shapes]
    n = sum(shape.numel() for shape in shapes)
    out, scale, base = (torch.randn(n, device=device) for _ in range(3))
    return tensors, shapes, out, scale, base


def _scatter_inputs(size: int, device: torch.device) -> tuple[object, ...]:
    shapes = _shapes(size)
    n = sum(shape.numel() for shape in shapes)
    vector, scale, out = (torch.randn(n, device=device) for _ in range(3))
    return vector, shapes, [torch.float32] * len(shapes), scale, out


def _entries() -> tuple[Entry, ...]:
    found = []
    for kind, width in _WIDTHS.items():
        flat_kind = "fp64" if kind == "fp64" else "fp32"
        flat_width = _WIDTHS[flat_kind]
        vector = f"*{flat_kind}"
        common = {
            "HAS_SCALE": True,
            "DTYPE": _DTYPES[kind],
            "FLAT_ALIGNMENT": ALIGNMENT // flat_width,
            "ACC": _DTYPES[flat_kind],
            "BLOCK": BLOCK,
        }
        tables = {"rows_ptr": "*i64", "blocks_ptr": "*i64", "num_blocks": "i64"}
        timed = kind == "fp32"
        found += [
            Entry(
                f"gather {kind}",
                gather_kernel,
                {
                    "addresses_ptr": "*i64",
                    **tables,
                    **dict.fromkeys(("out_ptr", "scale_ptr", "base_ptr", "partial_ptr"), vector),
                },
                {**common, "HAS_BASE": True},
                # Reads tensors, scale and base; torch reads base and out again for the sums.
                bytes_moved=per_element(width + 3 * flat_width),
                torch_bytes=per_element(width + 5 * flat_width),
                flops=per_element(4),
                operation=Operation(gather, reference.gather, _gather_inputs) if timed else None,
            ),
            Entry(
                f"scatter {kind}",
                scatter_kernel,
                {**tables, "storage_ptr": "*u8", "vector_ptr": vector, "scale_ptr": vector},
                common,
                bytes_moved=per_element(2 * flat_width + width),
                # Half-precision tensors are rounded separately from a scaled vector.
                torch_bytes=per_element(
                    3 * flat_width if width == flat_width else 4 * flat_width + width
                ),
                flops=per_element(1),
                operation=Operation(scatter, reference.scatter, _scatter_inputs) if timed else None,
            ),
        ]
    return tuple(found)


ENTRIES = _entries()
