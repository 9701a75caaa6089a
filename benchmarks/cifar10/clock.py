"""A stopwatch of training alone, and the memory that it takes."""

import resource
import sys
import time

import torch


class Stopwatch:
    """Counts seconds between :meth:`start` and :meth:`stop`.

    On a CPU they are seconds of processor time, so that a budget buys the same training whatever
    else the machine does and however often the run is paused.

    Args:
        device: waited for before the watch is read in :meth:`stop`.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._now = time.process_time if device == "cpu" else time.perf_counter
        self._started = 0.0

    def start(self) -> None:
        """Begin to count."""
        self._started = self._now()

    def running(self) -> float:
        """Return the seconds since the start, without waiting for the device."""
        return self._now() - self._started

    def stop(self) -> float:
        """Return the seconds since the start, the device's work included."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        return self.running()


def peak_memory_mib(device: str) -> float:
    """Return the largest memory of this process so far: on CUDA that of tensors, else all."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    # In kilobytes, except on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
