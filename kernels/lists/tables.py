"""Tables of addresses, by which one launch reaches all tensors of a list.

Which blocks there are depends on sizes alone, rows on shapes and strides: both come back from step
to step and are remembered. Addresses reach the device as arguments of launches, so that nothing
waits for the host, and a device graph that captures the launches rewrites them in every replay.
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
    """What a launch over the tensors of one dtype reads first, beside their addresses.

    Attributes:
        dtype: of the tensors.
        members: which of the list they are.
        rows: [number of members, columns] int64: offset of the piece in the flat vector; number of
            elements; kind; then what the kernel asks for.
        blocks: [number of blocks, 2] int64: row; first element within the tensor.
    """

    dtype: torch.dtype
    members: tuple[int, ...]
    rows: Tensor
    blocks: Tensor


def collapse(tensor: Tensor) -> tuple[list[int], list[int]] | None:
    """Return sizes and strides of as few dimensions as reach all elements in logical order.

    None if that takes more than four.
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
    """Return the row of a tensor whose piece of the flat vector begins at ``offset``.

    After the kind it has four sizes and four strides, outermost first.

    Args:
        tensor: that :func:`collapse` can describe, or None.
        offset: in elements.
        size: number of elements.
        itemsize: bytes of an element of the flat vectors.
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
    """Where a launch goes.

    Attributes:
        device: of the tensors.
        stream: that is current there, as a number; 0 on the CPU.
        capturing: whether the launch goes into a device graph.
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
    """What was made for the last few keys, for each stream that uses it.

    It is written on a stream without waiting, so another one might read it too early. A capture
    begins when all streams are done, so it takes any; what a device graph reads is kept for good.
    """

    def __init__(self) -> None:
        self._recent: OrderedDict[Hashable, dict[int, Any]] = OrderedDict()
        self._captured: dict[Hashable, Any] = {}

    def find(self, key: Hashable, place: Place, make: Callable[[], Any]) -> Any:
        """Return what belongs to ``key``; None if it would have to be made in a capture."""
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
        key: all that the rows depend on.
        rows: returns number in the list, dtype and row of each tensor that has elements.
        block: a power of two.
        place: where the tables are wanted.

    Returns:
        The tables. None in the capture of a device graph if there was no such list before: what
        they are copied from would have to outlive the graph.
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
    """Return the blocks of tensors of these sizes, all at least 1: [number of blocks, 2] int64."""

    def make() -> Tensor:
        counts = torch.tensor([-(-size // block) for size in sizes], device="cpu")
        rows = torch.repeat_interleave(counts)
        first = (counts.cumsum(0) - counts)[rows]
        starts = (torch.arange(len(rows), device="cpu") - first) * block
        return _to_device(torch.stack([rows, starts], 1), place.device)

    found: Tensor = _blocks.find((sizes, block), place, make)
    return found


def addresses(numbers: tuple[int, ...], place: Place) -> Tensor:
    """Return addresses [n] on the device, int64. Nothing is copied from the host."""

    def make() -> Tensor:
        table = torch.zeros(len(numbers), dtype=torch.int64, device=place.device)
        # Numbers of a list are arguments of the launch.
        torch._foreach_add_(list(table.unbind()), list(numbers))
        return table

    # What a graph writes is there from its first replay on, for nobody else.
    found: Tensor = make() if place.capturing else _addresses.find(numbers, place, make)
    return found


def _to_device(table: Tensor, device: torch.device) -> Tensor:
    """Copy to a device without waiting for it."""
    if device.type == "cpu":
        return table
    # The allocator of pinned memory keeps it until the copy is done.
    return table.pin_memory().to(device, non_blocking=True)
