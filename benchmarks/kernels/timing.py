"""Times of kernels against plain torch on a device, and of the plain forms on the CPU."""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.harness import conditions, in_turns
from benchmarks.kernels.checks import error
from benchmarks.kernels.registry import Entry, Operation, entries
from compopt.kernels import CGState, pieces, use_backend
from compopt.kernels.adaptive import reference as adaptive
from compopt.kernels.cg import reference as cg
from compopt.kernels.lists import reference as lists

Function = Callable[[], Any]

MATRIX_SIZE = 512
"""On the CPU, of operations on matrices."""


class _Counter(TorchDispatchMode):
    """Mode that counts dispatched operations, except those that move no data."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def num_operations(function: Function) -> int:
    """Return the number of torch operations of ``function``, which on a device are launches."""
    with _Counter() as counter:
        function()
    return counter.count


def on_device(sizes: Sequence[int], *, compiled: bool) -> dict[str, Any]:
    """Time each operation of the table: Triton, plain torch and, if ``compiled``, compiled torch.

    Entries whose results differ from their plain forms on this device are not timed.
    """
    from triton.testing import do_bench

    device = torch.device("cuda")
    source, target = (torch.empty(1 << 28, dtype=torch.uint8, device=device) for _ in range(2))
    copy = 2 * source.numel() / do_bench(lambda: target.copy_(source), return_mode="median") * 1e3
    rows = []
    for entry in track(entries(), description="kernels"):
        operation = entry.operation
        counts_elements = entry.size_means.startswith("elements")
        failure = failure_of(entry, 1 << 17 if counts_elements else 130, device)
        if failure is not None:
            rows.append({"name": entry.name, "failure": failure})
            continue
        if operation is None:
            continue
        # For matrices the size is not a number of elements, so only the entry's size is timed.
        for at in sizes if counts_elements else (entry.size,):
            inputs = operation.inputs(at, device)
            milliseconds = {}
            for form, function in _forms(operation, compiled=compiled).items():
                quantiles = do_bench(partial(function, *inputs), quantiles=[0.5, 0.2, 0.8])
                milliseconds[form] = dict(zip(("median", "p20", "p80"), quantiles, strict=True))
            moved = (operation.bytes_moved or entry.bytes_moved)(at)
            rate = moved / milliseconds["triton"]["median"] * 1e3
            rows.append(
                {
                    "name": entry.name,
                    "size": at,
                    "size_means": entry.size_means,
                    "milliseconds": milliseconds,
                    "bytes_per_second": rate,
                    "fraction_of_copy": rate / copy,
                }
            )
            del inputs
    return {"conditions": conditions(("triton",)), "copy_bytes_per_second": copy, "kernels": rows}


def failure_of(entry: Entry, size: int, device: torch.device) -> str | None:
    """Return the defect of an entry on a device; None if there is none."""
    try:
        return error(entry, size, device)
    except Exception as raised:
        return f"{type(raised).__name__}: {raised}".splitlines()[0]


def _forms(operation: Operation, *, compiled: bool) -> dict[str, Callable[..., Any]]:
    forms = {"triton": operation.launcher, "torch": operation.reference}
    if compiled:
        forms["compiled"] = torch.compile(operation.reference, dynamic=False)
    return forms


Gather = Callable[[list[Tensor], list[torch.Size], Tensor, Tensor], object]


def _gather(then_add: Gather) -> Callable[..., Tensor]:
    """Return a gather with base and inner product, built on a gather without them."""

    def gather(
        tensors: list[Tensor], shapes: list[torch.Size], out: Tensor, scale: Tensor, base: Tensor
    ) -> Tensor:
        then_add(tensors, shapes, out, scale)
        out.add_(base)
        return cg.partial_dot(base, out)

    return gather


def _foreach(tensors: list[Tensor], shapes: list[torch.Size], out: Tensor, scale: Tensor) -> None:
    views = pieces(out, shapes)
    torch._foreach_copy_(views, tensors)
    torch._foreach_mul_(views, pieces(scale, shapes))


def _cat(tensors: list[Tensor], shapes: list[torch.Size], out: Tensor, scale: Tensor) -> None:
    torch.cat([tensor.reshape(-1) for tensor in tensors], out=out)
    out.mul_(scale)


OTHER_FORMS: dict[str, dict[str, Callable[..., Any]]] = {
    "gather fp32": {
        "two passes": _gather(lists.gather),
        "foreach": _gather(_foreach),
        "cat": _gather(_cat),
    },
}


def on_cpu(size: int, rounds: int = 15, *, compiled: bool = True) -> dict[str, Any]:
    """Time alternative forms of the plain operations in turns with those in use."""
    device = torch.device("cpu")
    milliseconds: dict[str, dict[str, float]] = {}
    timed: set[object] = set()
    for entry in track(entries(), description="operations"):
        operation = entry.operation
        # Time only the first of several specialisations.
        if operation is None or operation.reference in timed:
            continue
        timed.add(operation.reference)
        at = size if entry.size_means.startswith("elements") else min(entry.size, MATRIX_SIZE)
        inputs = operation.inputs(at, device)
        forms = {"plain": operation.reference, **OTHER_FORMS.get(entry.name, {})}
        if compiled:
            forms["compiled"] = torch.compile(operation.reference, dynamic=False)
        works = {form: partial(function, *inputs) for form, function in forms.items()}
        times = in_turns(works, rounds, warm_up=2)
        milliseconds[entry.name] = {f: 1e3 * statistics.median(v) for f, v in times.items()}
    return {"conditions": conditions(), "size": size, "milliseconds": milliseconds}


def plain_counts() -> dict[str, int]:
    """Return operation counts of the plain forms, for comparison with launches."""
    n, m = 5000, 3000
    x, r, p, q = (torch.ones(n) for _ in range(4))
    y, t = torch.ones(m), torch.ones(m)
    state = CGState(torch.ones(()))

    def iteration() -> None:
        curvature = cg.partial_dot(p, q)
        square = cg.cg_update_(x, y, r, p, t, q, curvature, state)
        cg.cg_scalars_(state, curvature, square)
        cg.cg_direction_(p, r, state)

    def setup() -> None:
        for size in (n, m):
            average, grad, *outputs = (torch.ones(size) for _ in range(5))
            adaptive.adaptive_setup_(average, grad, 0.99, 0.1, 1e-5, *outputs)

    with use_backend("torch"):
        return {
            "an iteration of conjugate gradients": num_operations(iteration),
            # Subtract the operations that create the input vectors.
            "the set-up of both players": num_operations(setup) - 10,
        }
