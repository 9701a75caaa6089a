"""Attribute time, operations and memory of a step to its phases.

The package marks ranges for ``torch.profiler``. Time and launches come from a profile; operations,
bytes and arithmetic come from another step under a dispatch mode, which uses the same ranges.
"""

import bisect
import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.harness import Clock

LOSS = "benchmark::loss"
"""The range that the benchmark puts around the user's loss."""


class Phase(Enum):
    """Parts of a step, in the order of tables and bars."""

    LOSS = "loss"
    GRADIENTS = "first-order gradients"
    SET_UP = "set-up"
    PRODUCTS = "mixed products"
    VECTORS = "solver's vectors"
    UPDATE = "update"
    REST = "rest"


PHASES = {
    LOSS: Phase.LOSS,
    "compopt::gradients": Phase.GRADIENTS,
    "compopt::set_up": Phase.SET_UP,
    "compopt::product": Phase.PRODUCTS,
    "compopt::solve": Phase.VECTORS,
    "compopt::update": Phase.UPDATE,
    "Optimizer.step#Adam.step": Phase.UPDATE,
}
"""Phases by the name of the innermost range around an operation; REST outside of all."""

EMPTY = (torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty)
"""Operations that allocate and write nothing."""


@dataclass(frozen=True)
class Interval:
    """A range in a profile. Times in microseconds."""

    name: str
    start: float
    end: float


class Timeline:
    """Finds the phase of any moment of a profile.

    Args:
        intervals: ranges of one thread; any two are nested or disjoint.
    """

    def __init__(self, intervals: Iterable[Interval]) -> None:
        self._intervals = sorted(
            (interval for interval in intervals if interval.name in PHASES),
            key=lambda interval: (interval.start, -interval.end),
        )
        self._starts = [interval.start for interval in self._intervals]

    def phase(self, moment: float) -> Phase:
        """Return the phase of the innermost range around ``moment``."""
        # The innermost range is the last one that began and has not ended.
        for index in range(bisect.bisect_right(self._starts, moment) - 1, -1, -1):
            if moment <= self._intervals[index].end:
                return PHASES[self._intervals[index].name]
        return Phase.REST

    def durations(self, start: float, end: float) -> dict[Phase, float]:
        """Return the duration of each phase between two moments; the sum is ``end - start``."""
        borders = {start, end}
        borders |= {b for i in self._intervals for b in (i.start, i.end) if start < b < end}
        result = dict.fromkeys(Phase, 0.0)
        for begin, until in itertools.pairwise(sorted(borders)):
            result[self.phase((begin + until) / 2)] += until - begin
        return result


@dataclass
class Share:
    """Cost of a phase per step.

    Attributes:
        host_ms: time on the host.
        device_ms: time of the kernels that it launches; 0 without a device.
        launches: number of kernels on the device; 0 without a device.
        operations: number of torch operations, without views.
        gigabytes: bytes that the operations read and write, summed over operations.
        gigaflops: arithmetic of matrix products and convolutions.
        roofline_ms: least time of the operations, each at full bandwidth or arithmetic rate.
        allocated_mb: memory of new tensors.
    """

    host_ms: float = 0.0
    device_ms: float = 0.0
    launches: float = 0.0
    operations: float = 0.0
    gigabytes: float = 0.0
    gigaflops: float = 0.0
    roofline_ms: float = 0.0
    allocated_mb: float = 0.0


ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of what a trace shows on a device."""


def attribute(
    events: Sequence[Mapping[str, Any]],
    step_name: str,
    shares: dict[Phase, Share],
    steps: int,
) -> None:
    """Add time and launches of a trace of ``steps`` steps to ``shares``, per step.

    A kernel counts for the phase in which the host launched it, from any thread: in a backward pass
    the main thread waits for autograd's. Kernel and launch are matched by correlation number,
    because Triton's own launches belong to no operator.

    Args:
        events: ``traceEvents`` of a Chrome trace, times in microseconds.
        step_name: name of the range around a step.
        shares: costs to add to.
        steps: number of steps in the trace.
    """
    spans = [event for event in events if event.get("ph") == "X"]
    ranges = [event for event in spans if event.get("cat") == "user_annotation"]
    timeline = Timeline(
        Interval(event["name"], event["ts"], event["ts"] + event["dur"]) for event in ranges
    )
    for event in ranges:
        if event["name"] == step_name:
            lasted = timeline.durations(event["ts"], event["ts"] + event["dur"])
            for phase, microseconds in lasted.items():
                shares[phase].host_ms += microseconds / 1e3 / steps
    launched = {
        event["args"]["correlation"]: event["ts"]
        for event in spans
        if event.get("cat") in ("cuda_runtime", "cuda_driver")
    }
    for event in spans:
        if event.get("cat") in ON_DEVICE:
            moment = launched.get(event["args"]["correlation"], -math.inf)
            share = shares[timeline.phase(moment)]
            share.launches += 1 / steps
            share.device_ms += event["dur"] / 1e3 / steps


@dataclass(frozen=True)
class Peak:
    """Peak rates of a device.

    Attributes:
        bandwidth: bytes per second of a large copy.
        rate: floating-point operations per second of a large matrix product.
        convolution_rate: the same in the precision of convolutions, which is TF32 on a device
            unless disabled.
    """

    bandwidth: float
    rate: float
    convolution_rate: float


class Counting(TorchDispatchMode):
    """Mode that counts operations, bytes and arithmetic by phase.

    Args:
        shares: costs to add to.
        peak: peak rates of the device.
    """

    def __init__(self, shares: dict[Phase, Share], peak: Peak) -> None:
        super().__init__()
        self._shares = shares
        self._peak = peak
        self._ranges: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        name = func.name()
        if name.startswith("profiler::_record_function_enter"):
            self._ranges.append(args[0])
        elif name.startswith("profiler::_record_function_exit"):
            self._ranges.pop()
        else:
            self._count(func, args, kwargs or {}, result)
        return result

    def _count(self, func: Any, args: tuple, kwargs: dict, result: Any) -> None:
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if func.is_view or not outputs:
            return
        known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        new = [out for out in outputs if out.untyped_storage().data_ptr() not in known]
        share = self._shares[self._phase()]
        share.operations += 1
        # In-place results count as input and output; tensors that are only allocated do not count.
        is_empty = func.overloadpacket in EMPTY
        moved = 0 if is_empty else sum(tensor.nbytes for tensor in (*inputs, *outputs))
        formula = flop_registry.get(func.overloadpacket)
        flops = formula(*args, **kwargs, out_val=result) if formula else 0
        share.gigabytes += moved / 1e9
        share.gigaflops += flops / 1e9
        is_convolution = "convolution" in func.name()
        rate = self._peak.convolution_rate if is_convolution else self._peak.rate
        share.roofline_ms += 1e3 * max(moved / self._peak.bandwidth, flops / rate)
        share.allocated_mb += sum(tensor.nbytes for tensor in new) / 1e6

    def _phase(self) -> Phase:
        for name in reversed(self._ranges):
            if name in PHASES:
                return PHASES[name]
        return Phase.REST


@contextlib.contextmanager
def _precision_of_convolutions() -> Iterator[None]:
    """Use the precision of convolutions for matrix products."""
    before = torch.get_float32_matmul_precision()
    if torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def measured_peak(device: torch.device, seconds_of: Clock) -> Peak:
    """Measure the peak rates of a device.

    Args:
        device: the device to measure.
        seconds_of: returns the seconds of work on it.
    """
    on_cuda = device.type == "cuda"
    source = torch.ones(2**28 if on_cuda else 2**25, device=device)
    target = torch.empty_like(source)
    side = 8192 if on_cuda else 2048
    matrix = torch.ones(side, side, device=device)

    def rate() -> float:
        seconds = min(seconds_of(lambda: torch.mm(matrix, matrix)) for _ in range(5))
        return 2 * math.pow(side, 3) / seconds

    copy = min(seconds_of(lambda: target.copy_(source)) for _ in range(5))
    plain = rate()
    if not on_cuda:
        return Peak(2 * source.nbytes / copy, plain, plain)
    with _precision_of_convolutions():
        return Peak(2 * source.nbytes / copy, plain, rate())
