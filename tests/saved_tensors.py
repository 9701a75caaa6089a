"""Counts what autograd graphs keep alive."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class _Saved:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class SavedTensors:
    """The tensors that graphs made under :func:`counting_saved_tensors` still hold."""

    def __init__(self) -> None:
        self.total = 0
        self._alive: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def pack(self, tensor: Tensor) -> _Saved:
        """Wrap a tensor that a graph saves."""
        # Detached, or a saved output and its node would keep each other alive.
        saved = _Saved(tensor.detach())
        self._alive.add(saved)
        self.total += 1
        return saved

    def alive(self) -> int:
        """Return how many are still held, without waiting for a garbage collection."""
        return len(self._alive)


@contextmanager
def counting_saved_tensors() -> Iterator[SavedTensors]:
    """Count the tensors saved by graphs of first and second order made inside."""
    saved = SavedTensors()
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda packed: packed.tensor):
        yield saved
