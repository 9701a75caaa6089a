"""The table of all Triton kernels to compile, check and time.

Each module of ``entries/`` has a tuple ``ENTRIES``; :func:`entries` joins them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch

MODULES: tuple[str, ...] = (
    "activations",
    "adaptive",
    "cg",
    "linear",
    "lists",
    "norms",
    "penalties",
)
"""Modules of ``entries/``. They import Triton."""


@dataclass(frozen=True)
class Operation:
    """A kernel's operation, for timing it against plain torch.

    Attributes:
        launcher: the function that launches the kernel.
        reference: the plain function, with the same arguments.
        inputs: returns the arguments for a size and a device.
        bytes_moved: bytes that all its launches move, as a function of the size; None to use those
            of its entry.
    """

    launcher: Callable[..., Any]
    reference: Callable[..., Any]
    inputs: Callable[[int, torch.device], tuple[Any, ...]]
    bytes_moved: Callable[[int], float] | None = None


@dataclass(frozen=True)
class Entry:
    """One specialisation of a kernel.

    Attributes:
        name: unique name of the entry.
        kernel: the ``triton.jit`` function.
        signature: type of each argument that is not a ``constexpr``, as Triton writes types:
            ``"*fp32"``, ``"i64"``, ``"fp32"``. Pointers count as divisible by 16.
        constexprs: value of each ``constexpr``.
        bytes_moved: bytes read and written, as a function of ``size``.
        torch_bytes: bytes that the plain torch sequence reads and writes.
        flops: floating-point operations.
        size: a typical size, for the model of times.
        size_means: what ``size`` counts.
        divisible: integer arguments that callers keep divisible by 16.
        unaligned: pointers that need not be divisible by 16.
        num_warps: warps per program.
        num_stages: stages of software pipelines.
        load_bytes: required width of the widest load from global memory.
        matrix_unit: whether matrix instructions are required.
        skipped: reasons not to compile the entry for some targets, by name of the target.
        operation: the operation to time; None for a part of another entry's operation.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    bytes_moved: Callable[[int], float]
    torch_bytes: Callable[[int], float]
    flops: Callable[[int], float]
    size: int = 1 << 23
    size_means: str = "elements"
    divisible: tuple[str, ...] = ()
    unaligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 3
    load_bytes: int = 16
    matrix_unit: bool = False
    skipped: Mapping[str, str] = field(default_factory=dict)
    operation: Operation | None = None


def per_element(count: float) -> Callable[[int], float]:
    """Return a function from a size to ``count`` times the size."""
    return lambda size: count * size


def entries() -> tuple[Entry, ...]:
    """Return the entries of all modules. Imports Triton.

    Raises:
        ValueError: if two entries have the same name.
    """
    found: list[Entry] = []
    for name in MODULES:
        found.extend(import_module(f"benchmarks.kernels.entries.{name}").ENTRIES)
    names = [entry.name for entry in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"Names of entries must be unique; given twice: {', '.join(twice)}.")
    return tuple(found)
