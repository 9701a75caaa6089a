"""Tables of addresses, with which one launch accesses all tensors of a list.

Blocks depend only on sizes, and rows on shapes and strides. Both are equal in every step and are
cached. Addresses reach the device as arguments of launches, so the device does not wait for the
host, and a device graph that captures the launches writes the addresses again in each replay.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MISSING, ALIGNED, CONTIGUOUS, STRIDED = range(4)
"""Kinds of rows: no tensor; 16-byte accesses on both sides; element by element; by strides."""

_CAPACITY = 64


@dataclass(frozen=True)
class Table:
    """Description of the tensors of one dtype for a launch, except for their addresses.

    Attributes:
        dtype: dtype of the tensors.
        members: their indices in the list.
        rows: [number of members, columns] int64: offset of the piece in the flat vector; number of
            elements; kind; then columns that depend on the kernel.
        blocks: [number of blocks, 2] int64: row; first element within the tensor.
    """

    dtype: torch.dtype
    members: tuple[int, ...]
    rows: Tensor
    blocks: Tensor


def collapse(tensor: Tensor) -> tuple[list[int], list[int]] | None:
    """Merge dimensions; return the sizes and strides of four that give the same logical order.

    Return None if more than four are needed.
    """
    sizes: list[int] = []
    strides: list[int] = []
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if size == 1:
            continue
        if sizes and strides[-1] == size * stride:
            sizes[-1] *= size
            strides[-1] = stride
        else:
            sizes.append(size)
            strides.append(stride)
    if len(sizes) > 4:
        return None
    padding = 4 - len(sizes)
    return [1] * padding + sizes, [0] * padding + strides


def row(tensor: Tensor | None, offset: int, size: int, itemsize: int) -> list[int]:
    """Return the row of a tensor whose piece of the flat vector starts at ``offset``.

    The columns after the kind are four sizes and four strides, outermost first.

    Args:
        tensor: a tensor that :func:`collapse` supports, or None.
        offset: in elements.
        size: number of elements.
        itemsize: bytes per element of the flat vectors.
    """
    if tensor is None:
        return [offset, size, MISSING, 1, 1, 1, size, 0, 0, 0, 1]
    collapsed = collapse(tensor)
    assert collapsed is not None
    sizes, strides = collapsed
    kind = STRIDED
    if sizes[:3] == [1, 1, 1] and (strides[3] == 1 or size == 1):
        aligned = tensor.data_ptr() % 16 == 0 and offset * itemsize % 16 == 0
        kind = ALIGNED if aligned else CONTIGUOUS
    return [offset, size, kind, *sizes, *strides]


@dataclass(frozen=True)
class Place:
    """Device and stream of a launch.

    Attributes:
        device: device of the tensors.
        stream: current stream of the device, as a number; 0 unless it is a CUDA device.
        capturing: whether a device graph captures the launch.
    """

    device: torch.device
    stream: int = 0
    capturing: bool = False

    @classmethod
    def of(cls, vector: Tensor) -> "Place":
        """Return the place of a launch on ``vector``."""
        if vector.device.type != "cuda":
            return cls(vector.device)
        with torch.cuda.device(vector.device):
            return cls(
                vector.device,
                torch.cuda.current_stream().cuda_stream,
                torch.cuda.is_current_stream_capturing(),
            )


class _Memory:
    """Cache of device tensors for recent keys, with an entry per stream.

    An entry is written on its stream without waiting, so another stream might read it too early. A
    capture begins when all streams are done, so it may use any entry. Entries that a device graph
    reads are kept forever.
    """

    def __init__(self) -> None:
        self._recent: OrderedDict[Hashable, dict[int, Any]] = OrderedDict()
        self._captured: dict[Hashable, Any] = {}

    def find(self, key: Hashable, place: Place, make: Callable[[], Any]) -> Any:
        """Return the entry for ``key``, made if missing; None if it is missing during a capture."""
        key = key, place.device
        if place.capturing:
            if key not in self._captured and key in self._recent:
                self._captured[key] = next(iter(self._recent[key].values()))
            return self._captured.get(key)
        by_stream = self._recent.get(key, {})
        found = by_stream.get(place.stream)
        if found is None:
            found = by_stream[place.stream] = make()
            self._recent[key] = by_stream
            if len(self._recent) > _CAPACITY:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        return found


_tables, _blocks, _addresses = _Memory(), _Memory(), _Memory()


def tables(
    key: Hashable,
    rows: Callable[[], Sequence[tuple[int, torch.dtype, list[int]]]],
    block: int,
    place: Place,
) -> Sequence[Table] | None:
    """Return the tables of a list, one for each dtype, in blocks of ``block`` elements.

    Args:
        key: everything that the rows depend on.
        rows: returns index in the list, dtype and row of each tensor that has elements.
        block: number of elements per block, a power of two.
        place: device and stream of the launch.

    Returns:
        The tables. None during the capture of a device graph if the list is new: the host memory
        that they are copied from would have to outlive the graph.
    """

    def make() -> tuple[Table, ...]:
        groups: dict[torch.dtype, list[tuple[int, list[int]]]] = {}
        for index, dtype, entry in rows():
            groups.setdefault(dtype, []).append((index, entry))
        return tuple(
            Table(
                dtype,
                tuple(index for index, _ in group),
                _to_device(torch.tensor([entry for _, entry in group], device="cpu"), place.device),
                blocks(tuple(entry[1] for _, entry in group), block, place),
            )
            for dtype, group in groups.items()
        )

    found: Sequence[Table] | None = _tables.find((key, block), place, make)
    return found


def blocks(sizes: tuple[int, ...], block: int, place: Place) -> Tensor:
    """Return the blocks of tensors of these sizes, each at least 1: [number of blocks, 2] int64."""

    def make() -> Tensor:
        counts = torch.tensor([-(-size // block) for size in sizes], device="cpu")
        rows = torch.repeat_interleave(counts)
        first = (counts.cumsum(0) - counts)[rows]
        starts = (torch.arange(len(rows), device="cpu") - first) * block
        return _to_device(torch.stack([rows, starts], 1), place.device)

    found: Tensor = _blocks.find((sizes, block), place, make)
    return found


def addresses(numbers: tuple[int, ...], place: Place) -> Tensor:
    """Return addresses [n] on the device, int64, without a copy from the host."""

    def make() -> Tensor:
        table = torch.zeros(len(numbers), dtype=torch.int64, device=place.device)
        # `_foreach_add_` passes a list of numbers as arguments of the launch.
        torch._foreach_add_(list(table.unbind()), list(numbers))
        return table

    # Do not cache during a capture: the table is only written when the graph is replayed.
    found: Tensor = make() if place.capturing else _addresses.find(numbers, place, make)
    return found


def _to_device(table: Tensor, device: torch.device) -> Tensor:
    """Copy to a device without waiting for it."""
    if device.type == "cpu":
        return table
    # The allocator keeps pinned memory until the copy is done.
    return table.pin_memory().to(device, non_blocking=True)
