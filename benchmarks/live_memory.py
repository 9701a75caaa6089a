"""Memory of live tensors, counted per operation, so that it is the same on every machine."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Mode that counts the bytes of all live tensors that operations return.

    Each storage counts once, from the operation that returns it until it is freed. Temporary memory
    inside operations is not counted.

    Args:
        tensors: existing tensors that count from the beginning, such as parameters.

    Attributes:
        now: current bytes.
        peak: maximum bytes so far; may be set.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._live: set[int] = set()
        for tensor in tensors:
            self._add(tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation and count the tensors that it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # Identify the storage, not the data pointer: another tensor may reuse freed memory.
        key, size = id(storage), storage.nbytes()
        if key in self._live or not size:
            return
        self._live.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._live.discard(key)
        self.now -= size


def device_peak(device: torch.device, function: Callable[[], object]) -> int:
    """Return the peak of allocated bytes on a CUDA device while ``function`` runs.

    Excludes bytes that were allocated before, and memory that the allocator caches.
    """
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
