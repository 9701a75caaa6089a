"""Entries of the set-up of an adaptive step."""

import torch
import triton.language as tl

from benchmarks.kernels.registry import Entry, Operation, per_element
from compopt.kernels._blocks import block_size
from compopt.kernels.adaptive import reference
from compopt.kernels.adaptive.triton import (
    adaptive_setup_,
    adaptive_setup_kernel,
    average_squares_,
    average_squares_kernel,
)

_WIDTHS = {"fp32": 4, "fp64": 8, "bf16": 2}
_DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16}


def _setup_inputs(size: int, device: torch.device) -> tuple[object, ...]:
    average, grad, step_sizes, root, scaled = (torch.rand(size, device=device) for _ in range(5))
    return average, grad, 0.99, 1e-4, 1e-5, step_sizes, root, scaled


def _average_inputs(size: int, device: torch.device) -> tuple[object, ...]:
    return torch.rand(size, device=device), torch.randn(size, device=device), 0.99


def _entries() -> tuple[Entry, ...]:
    found = []
    for kind, width in _WIDTHS.items():
        vector = f"*{kind}"
        acc = tl.float64 if kind == "fp64" else tl.float32
        lengths = {"n": "i64", "num_blocks": "i64"}
        timed = kind == "fp32"
        found += [
            Entry(
                f"adaptive_setup {kind}",
                adaptive_setup_kernel,
                {
                    **dict.fromkeys(("average_ptr", "grad_ptr", "step_ptr"), vector),
                    **dict.fromkeys(("root_ptr", "scaled_ptr"), vector),
                    "rate_ptr": "*fp64" if kind == "fp64" else "*fp32",
                    "num_steps_ptr": "*fp32",
                    **dict.fromkeys(("beta", "one_minus_beta", "log_beta", "rate", "eps"), "fp64"),
                    **lengths,
                },
                {
                    "HAS_ROOT": True,
                    "HAS_SCALED": True,
                    "HAS_RATE": False,
                    "HAS_NUM_STEPS": True,
                    "NEGATIVE": False,
                    "ACC": acc,
                    "BLOCK": block_size(_DTYPES[kind]),
                },
                # Reads two vectors and writes three; torch makes seven passes.
                bytes_moved=per_element(5 * width),
                torch_bytes=per_element(16 * width),
                flops=per_element(8),
                operation=Operation(adaptive_setup_, reference.adaptive_setup_, _setup_inputs)
                if timed
                else None,
            ),
            Entry(
                f"average_squares {kind}",
                average_squares_kernel,
                {
                    "average_ptr": vector,
                    "grad_ptr": vector,
                    "advance_ptr": "*i1",
                    **dict.fromkeys(("beta", "one_minus_beta"), "fp64"),
                    **lengths,
                },
                {"HAS_ADVANCE": True, "ACC": acc, "BLOCK": block_size(_DTYPES[kind])},
                bytes_moved=per_element(3 * width),
                torch_bytes=per_element(5 * width),
                flops=per_element(4),
                operation=Operation(average_squares_, reference.average_squares_, _average_inputs)
                if timed
                else None,
            ),
        ]
    return tuple(found)


ENTRIES = _entries()
