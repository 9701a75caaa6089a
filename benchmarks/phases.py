"""Which phase of a step an operation belongs to, and what it does there.

The package marks ranges for ``torch.profiler``. Time and launches come from a profile; operations,
bytes and arithmetic from another step that is run under a dispatch mode, which sees the same marks.
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
        intervals: ranges of one thread: of two, one lies in the other or they are apart.
    """

    def __init__(self, intervals: Iterable[Interval]) -> None:
        self._intervals = sorted(
            (interval for interval in intervals if interval.name in PHASES),
            key=lambda interval: (interval.start, -interval.end),
        )
        self._starts = [interval.start for interval in self._intervals]

    def phase(self, moment: float) -> Phase:
        """Return the phase of the innermost range around ``moment``."""
        # The innermost one is the last to begin that has not ended.
        for index in range(bisect.bisect_right(self._starts, moment) - 1, -1, -1):
            if moment <= self._intervals[index].end:
                return PHASES[self._intervals[index].name]
        return Phase.REST

    def durations(self, start: float, end: float) -> dict[Phase, float]:
        """Return how long each phase lasts between two moments: together ``end - start``."""
        borders = {start, end}
        borders |= {b for i in self._intervals for b in (i.start, i.end) if start < b < end}
        result = dict.fromkeys(Phase, 0.0)
        for begin, until in itertools.pairwise(sorted(borders)):
            result[self.phase((begin + until) / 2)] += until - begin
        return result


@dataclass
class Share:
    """What a phase takes, in a step.

    Attributes:
        host_ms: on the host.
        device_ms: of kernels that it launches on the device; 0 without one.
        launches: kernels on the device; 0 without one.
        operations: of torch that do not merely view.
        gigabytes: that these read and write, each operation for itself.
        gigaflops: of matrix products and convolutions.
        roofline_ms: the least time that these take, each at full bandwidth or arithmetic rate.
        allocated_mb: of new tensors.
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

    A kernel counts for the phase in which the host launched it, from whichever thread: in a
    backward pass the host's first thread waits for autograd's. It is found by the number that it
    shares with its launch: Triton's own launches belong to no operator.

    Args:
        events: ``traceEvents`` of a Chrome trace, times in microseconds.
        step_name: of the range around a step.
        shares: where to add.
        steps: how many the trace has.
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
    """What a device can do.

    Attributes:
        bandwidth: bytes a second, of a large copy.
        rate: floating-point operations a second, of a large matrix product.
        convolution_rate: of one in the precision of convolutions, which is tf32 on a device unless
            that is turned off.
    """

    bandwidth: float
    rate: float
    convolution_rate: float


class Counting(TorchDispatchMode):
    """Counts operations, bytes and arithmetic by phase while it is entered.

    Args:
        shares: where to count.
        peak: of the device.
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
        # What is written in place is an input and an output; what is only allocated is neither.
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
    """Let matrix products have the precision that convolutions have."""
    before = torch.get_float32_matmul_precision()
    if torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def measured_peak(device: torch.device, seconds_of: Clock) -> Peak:
    """Measure what a device can do.

    Args:
        device: to measure.
        seconds_of: of work on it, by its own clock.
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
