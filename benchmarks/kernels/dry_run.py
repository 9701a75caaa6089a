"""Compile and record kernel launches without a device, without running them.

``with dry_run() as run:`` sends launches through Triton's own path (argument binding, alignment
specialisation, option checks, compilation, shared-memory limit) to a driver that records them.
Tensors may be on the CPU. Outputs are not written, so do not compare them.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver as active_drivers
from triton.runtime.jit import JITFunction

from benchmarks.kernels.targets import TARGETS, Target


@dataclass(frozen=True)
class Launch:
    """A recorded launch.

    Attributes:
        name: name of the kernel.
        grid: number of programs along each axis.
        signature: type of each argument.
        constants: arguments that were compiled in.
        divisible: arguments known to be divisible by 16.
        shared_bytes: shared memory per program.
        num_warps: warps per program.
    """

    name: str
    grid: tuple[int, int, int]
    signature: dict[str, str]
    constants: dict[str, Any]
    divisible: tuple[str, ...]
    shared_bytes: int
    num_warps: int


class _Utils:
    """Device properties for the compiler, and a loader of binaries."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": self._target.shared_bytes,
            "multiprocessor_count": 132,
            "max_num_regs": 65536,
            "warpSize": self._target.warp_size,
            "sm_clock_rate": 1,
            "mem_clock_rate": 1,
            "mem_bus_width": 1,
        }

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, ...]:
        # Module, function, registers, spills and, since Triton 3.4, maximum threads per program.
        loaded = (0, 0, 0, 0, 1024)
        version = tuple(map(int, triton.__version__.split(".")[:2]))
        return loaded if version >= (3, 4) else loaded[:4]

    def unload_module(self, module: int) -> None:
        pass


_active_runs: "list[DryRun]" = []


class DryRun:
    """A driver for :func:`dry_run`.

    Attributes:
        launches: recorded launches.
    """

    def __init__(self, target: Target) -> None:
        self.launches: list[Launch] = []
        self.utils = _Utils(target)
        self._target = GPUTarget(target.backend, target.arch, target.warp_size)

    @property
    def names(self) -> list[str]:
        """Names of the kernels launched so far."""
        return [launch.name for launch in self.launches]

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        """Return the function that Triton calls instead of a generated launcher."""
        names = source.fn.arg_names

        def launch(x: int, y: int, z: int, *arguments: Any) -> None:
            # Look up the active run, because compiled code outlives the run that compiled it.
            _active_runs[-1].launches.append(
                Launch(
                    name=source.fn.__name__,
                    grid=(x, y, z),
                    signature=dict(source.signature),
                    constants={names[key[0]]: value for key, value in source.constants.items()},
                    divisible=tuple(
                        sorted(
                            names[key[0]]
                            for key, value in source.attrs.items()
                            if ["tt.divisibility", 16] in value
                        )
                    ),
                    shared_bytes=metadata.shared,
                    num_warps=metadata.num_warps,
                )
            )

        return launch

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        return torch.cpu

    def get_benchmarker(self) -> Callable[..., list[float]]:
        def benchmark(function: Callable[[], Any], quantiles: Any = None, **_: Any) -> list[float]:
            function()
            return [1.0] * len(quantiles or [1])

        return benchmark

    def get_empty_cache_for_benchmark(self) -> torch.Tensor:
        return torch.empty(1)

    def clear_cache(self, cache: torch.Tensor) -> None:
        pass

    def map_python_to_cpp_type(self, name: str) -> str:
        return name


@contextlib.contextmanager
def dry_run(target: str = "sm_90") -> Iterator[DryRun]:
    """Record launches inside the context instead of running them.

    Args:
        target: a name in :data:`~benchmarks.kernels.targets.TARGETS`.

    Raises:
        RuntimeError: if this process interprets kernels.
    """
    if not isinstance(tl.sum, JITFunction):
        raise RuntimeError(
            "Kernels are interpreted in this process: start one without TRITON_INTERPRET."
        )
    run = DryRun(TARGETS[target])
    before = getattr(active_drivers, "_active", None)
    active_drivers.set_active(run)
    _active_runs.append(run)
    try:
        yield run
    finally:
        _active_runs.pop()
        active_drivers._active = before
