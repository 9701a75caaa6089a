"""What tensors occupy, counted as operations make and drop them: the same on every machine."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations return while it is entered.

    Each storage counts once, from the operation that returns it to its end. What operations use
    within themselves is not seen.

    Args:
        tensors: that exist already and count from the beginning, such as parameters.

    Attributes:
        now: bytes at present.
        peak: most bytes so far; may be set.
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
        """Run an operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        # Of the storage, not of its data: another tensor's data may come to lie where these were.
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
    """Return the most bytes that were in use on a CUDA device while ``function`` ran.

    What was in use before is left out; what the device's allocator keeps for later is as well.
    """
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
