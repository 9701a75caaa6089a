"""Check on a device that a kernel agrees with its plain form, in each dtype."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.registry import Entry, Operation, entries
from compopt.kernels import CGState
from compopt.kernels.cg.state import ALPHA, BETA, GAMMA, NUM_ITER, WORST_FALL

Inputs = tuple[Any, ...]

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16}
RTOL = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Relative error in the Euclidean norm that a kernel may make, by dtype of its result."""
TF32_RTOL = 2e-3

MIDDLE = {GAMMA: 2.0, ALPHA: 0.5, BETA: 0.25, WORST_FALL: 0.5, NUM_ITER: 3.0}
"""Of the scalars of an iteration, those that are others in the middle of a solve."""

PARTS = {
    "bn sums moments": "bn normalize",
    "bn sums gradient": "bn gradient",
    "bn sums tangent": "bn tangent",
    "bn sums curvature": "bn curvature",
}
"""Launches that are part of an operation, and the entry that has the operation."""


def operation_of(entry: Entry) -> Operation:
    """Return an operation that launches ``entry``, in its dtype and precision."""
    if entry.operation is not None:
        return entry.operation
    by_name = {other.name: other for other in entries()}
    for part, whole in PARTS.items():
        if entry.name.startswith(part):
            operation = by_name[entry.name.replace(part, whole)].operation
            assert operation is not None
            return operation
    sibling = next(
        other.operation
        for other in by_name.values()
        if other.operation is not None
        and other.kernel is entry.kernel
        and other.name.split()[0] == entry.name.split()[0]
    )
    launcher = sibling.launcher
    if "tf32" in entry.name:
        launcher = partial(launcher, precision=entry.constexprs["PRECISION"])
    return Operation(launcher, sibling.reference, sibling.inputs)


def dtype_of(entry: Entry) -> torch.dtype:
    """Return the dtype of an entry's tensors."""
    kinds = {**DTYPES, "fp16": torch.float16}
    return next((kinds[word] for word in entry.name.split() if word in kinds), torch.float32)


def _inputs(entry: Entry, operation: Operation, size: int, device: torch.device) -> Inputs:
    """Return inputs of the entry's dtype that give each kernel nontrivial work."""
    given = list(operation.inputs(size, device))
    name, dtype = entry.name.split()[0], dtype_of(entry)
    for value in given:
        if isinstance(value, CGState):
            # Set the scalars as in the middle of a solve.
            for place, number in MIDDLE.items():
                value.values[place] = number
    if name == "cg_scalars":
        given[1:] = given[1] / len(given[1]), given[2] / (3 * len(given[2]))
    if name == "cg_update":
        given[6] = torch.full_like(given[6], 5.0)
    if entry.name.startswith("gram strip"):
        # Thresholds below some cosines, so that these count.
        given[1:] = 0.02, 0.03
    if name == "gather" and dtype == torch.bfloat16:
        given[0] = [tensor.to(dtype) for tensor in given[0]]
    elif name == "scatter":
        given[2] = [dtype] * len(given[2])
        if dtype == torch.float64:
            given[0], given[3] = given[0].double(), given[3].double()
    elif name != "gather" or dtype == torch.float64:
        given = [_cast(value, dtype) for value in given]
    return tuple(given)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    if isinstance(value, CGState):
        state = CGState(value.gamma)
        state.values = value.values.to(torch.promote_types(dtype, torch.float32))
        return state
    return _mapped(lambda item: _cast(item, dtype), value)


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Return a list or named tuple with ``function`` applied to its items, others unchanged."""
    if isinstance(value, list):
        return [function(item) for item in value]
    return type(value)(*map(function, value)) if hasattr(value, "_fields") else value


def _copied(value: Any, dtype: torch.dtype | None = None) -> Any:
    """Return a copy, in ``dtype`` if it is not None."""
    if isinstance(value, Tensor):
        return value.clone() if dtype is None else value.to(dtype, copy=True)
    if isinstance(value, CGState):
        return _cast(value, dtype or value.values.dtype)
    return _mapped(lambda item: _copied(item, dtype), value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, CGState):
        yield value.values
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _run(form: Callable[..., Any], given: Inputs, *, has_room: bool) -> list[Tensor]:
    """Return the results of a form, and its inputs after the call."""
    result = form(*given)
    # Skip the output buffer, the last input: forms may use it differently.
    return [*_tensors(result), *_tensors(given[:-1] if has_room else given)]


def error(entry: Entry, size: int, device: torch.device) -> str | None:
    """Return how a kernel differs from its plain form in float64; None if it does not."""
    operation = operation_of(entry)
    given = _inputs(entry, operation, size, device)
    wide = tuple(_copied(value, torch.float64) for value in given)
    has_room = entry.name.startswith("scatter")
    exact = _run(operation.reference, wide, has_room=has_room)
    found = _run(operation.launcher, tuple(map(_copied, given)), has_room=has_room)
    if len(found) != len(exact):
        return f"{len(found)} results, not {len(exact)}"
    for index, (actual, truth) in enumerate(zip(found, exact, strict=True)):
        if actual.shape != truth.shape:
            # Partial sums: compare their totals.
            actual, truth = actual.sum(), truth.sum()
        wrong = float(torch.linalg.vector_norm(actual.double() - truth.double()))
        norm = float(torch.linalg.vector_norm(truth.double()))
        allowed = RTOL[actual.dtype] if actual.is_floating_point() else 0.0
        if entry.constexprs.get("PRECISION") == "tf32":
            allowed = TF32_RTOL
        # Results in a wider dtype have the rounding errors of the entry's narrower inputs.
        allowed = max(allowed, RTOL[dtype_of(entry)])
        if not wrong <= allowed * max(norm, 1e-30):
            return f"result {index} is off by {wrong / max(norm, 1e-30):.1e} of {allowed:.0e}"
    return None
