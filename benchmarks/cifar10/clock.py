"""A stopwatch for training, and its peak memory."""

import resource
import sys
import time

import torch


class Stopwatch:
    """Counts seconds between :meth:`start` and :meth:`stop`.

    On a CPU it counts processor time, so that other load on the machine and pauses of the run do
    not count.

    Args:
        device: :meth:`stop` synchronises with it before reading the time.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._now = time.process_time if device == "cpu" else time.perf_counter
        self._started = 0.0

    def start(self) -> None:
        """Start counting."""
        self._started = self._now()

    def running(self) -> float:
        """Return the seconds since the start, without waiting for the device."""
        return self._now() - self._started

    def stop(self) -> float:
        """Return the seconds since the start, including the device's work."""
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        return self.running()


def peak_memory_mib(device: str) -> float:
    """Return the peak memory of this process: of tensors on CUDA, otherwise all of it."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    # The unit is kilobytes, except on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
