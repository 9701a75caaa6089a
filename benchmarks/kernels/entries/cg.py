"""Entries of the conjugate gradient kernels."""

import torch
import triton.language as tl
from torch import Tensor

from benchmarks.kernels.registry import Entry, Operation, per_element
from compopt.kernels._blocks import MAX_PROGRAMS, block_size
from compopt.kernels.cg import reference
from compopt.kernels.cg.state import ALPHA, CGState
from compopt.kernels.cg.triton import (
    cg_direction_,
    cg_direction_kernel,
    cg_scalars_,
    cg_scalars_kernel,
    cg_update_,
    cg_update_kernel,
    partial_dot,
    partial_dot_kernel,
)


def _vectors(size: int, device: torch.device, count: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(size, device=device) for _ in range(count))


def _update_inputs(size: int, device: torch.device) -> tuple[object, ...]:
    x, y, r, p, t, q = _vectors(size, device, 6)
    # A large curvature makes the step so short that repeated launches do not change the vectors.
    curvature = torch.full((1,), 1e12, device=device)
    return x, y, r, p, t, q, curvature, CGState(torch.ones((), device=device))


def _direction_inputs(size: int, device: torch.device) -> tuple[object, ...]:
    state = CGState(torch.ones((), device=device))
    # A nonzero step size; with zero the system is frozen and its direction does not change.
    state.values[ALPHA] = 1.0
    return *_vectors(size, device, 2), state


def _scalars_inputs(size: int, device: torch.device) -> tuple[object, ...]:
    parts = torch.ones(min(size, MAX_PROGRAMS), device=device)
    return CGState(torch.ones((), device=device)), parts, parts


_WIDTHS = {"fp32": 4, "fp64": 8, "bf16": 2}
_DTYPES = {"fp32": torch.float32, "fp64": torch.float64, "bf16": torch.bfloat16}


def _entries() -> tuple[Entry, ...]:
    found = []
    for kind, width in _WIDTHS.items():
        sums = "fp64" if kind == "fp64" else "fp32"
        acc = tl.float64 if kind == "fp64" else tl.float32
        vector, scalars = f"*{kind}", f"*{sums}"
        common = {"ACC": acc, "BLOCK": block_size(_DTYPES[kind])}
        lengths = {"n": "i64", "num_blocks": "i64"}
        timed = kind == "fp32"
        found += [
            Entry(
                f"partial_dot {kind}",
                partial_dot_kernel,
                {"a_ptr": vector, "b_ptr": vector, "partial_ptr": scalars, **lengths},
                common,
                bytes_moved=per_element(2 * width),
                torch_bytes=per_element(2 * width),
                flops=per_element(2),
                operation=Operation(
                    partial_dot, reference.partial_dot, lambda n, d: _vectors(n, d, 2)
                )
                if timed
                else None,
            ),
            Entry(
                f"cg_update {kind}",
                cg_update_kernel,
                {
                    **dict.fromkeys(("x_ptr", "y_ptr", "r_ptr", "p_ptr", "t_ptr", "q_ptr"), vector),
                    "source_ptr": vector,
                    **dict.fromkeys(("curvature_ptr", "state_ptr", "partial_ptr"), scalars),
                    **dict.fromkeys(("n", "m", "num_blocks", "num_inner_blocks"), "i64"),
                    "num_curvature": "i32",
                },
                {**common, "HAS_Y": True, "HAS_R": True, "MAX_PROGRAMS": MAX_PROGRAMS},
                # Reads six vectors and writes three; torch reads r once more for its norm.
                bytes_moved=per_element(9 * width),
                torch_bytes=per_element(10 * width),
                flops=per_element(8),
                size_means="elements of x and of y",
                operation=Operation(cg_update_, reference.cg_update_, _update_inputs)
                if timed
                else None,
            ),
            Entry(
                f"cg_direction {kind}",
                cg_direction_kernel,
                {"p_ptr": vector, "r_ptr": vector, "state_ptr": scalars, **lengths},
                common,
                bytes_moved=per_element(3 * width),
                torch_bytes=per_element(3 * width),
                flops=per_element(2),
                operation=Operation(cg_direction_, reference.cg_direction_, _direction_inputs)
                if timed
                else None,
            ),
        ]
        if kind != "bf16":
            found.append(
                Entry(
                    f"cg_scalars {kind}",
                    cg_scalars_kernel,
                    {
                        **dict.fromkeys(("state_ptr", "curvature_ptr", "square_ptr"), scalars),
                        **dict.fromkeys(("num_curvature", "num_square"), "i32"),
                    },
                    {"HAS_SQUARE": True, "ACC": acc, "MAX_PROGRAMS": MAX_PROGRAMS},
                    bytes_moved=per_element(2 * width),
                    torch_bytes=per_element(2 * width),
                    flops=per_element(2),
                    size=MAX_PROGRAMS,
                    size_means="partial sums",
                    # A few kilobytes, whose number is not known at compile time.
                    load_bytes=width,
                    operation=Operation(cg_scalars_, reference.cg_scalars_, _scalars_inputs)
                    if timed
                    else None,
                )
            )
    return tuple(found)


ENTRIES = _entries()
