"""Entries of bias and activation."""

from typing import Any

import torch
import triton.language as tl

from benchmarks.kernels.registry import Entry, Operation
from compopt.kernels.activations import reference
from compopt.kernels.activations import triton as implementation
from compopt.kernels.activations.reference import FROM_OUTPUT, Activation
from compopt.kernels.activations.triton import (
    _BLOCK,
    _KINDS,
    CURVATURE,
    FORWARD,
    TANGENT,
    bias_act_kernel,
)


def _operation(what: str, kind: str) -> Operation:
    activation = Activation(kind, 0.2)

    def inputs(size: int, device: torch.device) -> tuple[Any, ...]:
        side = 32 if size >> 16 else 8
        shape = max(size // (64 * side * side), 1), 64, side, side
        v, grad, x = (torch.randn(shape, device=device) for _ in range(3))
        bias = torch.randn(64, device=device)
        # Without the bias sums, which another kernel computes.
        return {
            "forward": (x, bias, activation),
            "tangent": (v, None, x, None, activation),
            "curvature": (v, None, grad, x, None, activation),
        }[what]

    name = f"bias_act_{what}"
    return Operation(getattr(implementation, name), getattr(reference, name), inputs)


def _entry(name: str, what: Any, kind: str, tensors: int, torch_passes: int) -> Entry:
    pointers = [key for key in bias_act_kernel.arg_names if key.endswith("_ptr")]
    counts = dict.fromkeys(("n", "inner", "num_channels"), "i32")
    biased = what == FORWARD or kind not in FROM_OUTPUT
    return Entry(
        name=f"{kind} {name}",
        kernel=bias_act_kernel,
        signature={**dict.fromkeys(pointers, "*fp32"), **counts, "slope": "fp64"},
        constexprs={
            **{"WHAT": what, "KIND": _KINDS[kind], "HAS_BIAS": biased, "HAS_V_BIAS": False},
            **{"BLOCK": _BLOCK, "ACC": tl.float32},
        },
        bytes_moved=lambda size: 4.0 * tensors * size,
        torch_bytes=lambda size: 4.0 * torch_passes * size,
        flops=lambda size: 20.0 * size,
        size=1 << 24,
        operation=_operation(name, kind),
    )


ENTRIES = tuple(
    entry
    for kind in _KINDS
    for entry in (
        _entry("forward", FORWARD, kind, 2, 5),
        _entry("tangent", TANGENT, kind, 3, 6),
        *([] if kind == "leaky_relu" else [_entry("curvature", CURVATURE, kind, 4, 15)]),
    )
)
