"""Tables of addresses, by which one launch reaches all tensors of a list."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_COLUMNS = 12
MISSING, ALIGNED, CONTIGUOUS, STRIDED = range(4)
"""Kinds of rows: no tensor; 16-byte accesses on both sides; element by element; by strides."""

_CAPACITY = 64


@dataclass(frozen=True)
class Tables:
    """What a launch over a list reads first.

    Attributes:
        rows: [number of tensors, NUM_COLUMNS] int64: address; offset of the piece in the flat
            vector; number of elements; kind; four sizes; four strides, outermost first.
        blocks: [number of blocks, 2] int64: row; first element within the tensor.
    """

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

    Args:
        tensor: that :func:`collapse` can describe, or None.
        offset: in elements.
        size: number of elements.
        itemsize: bytes of an element of the flat vectors.
    """
    if tensor is None:
        return [0, offset, size, MISSING, 1, 1, 1, size, 0, 0, 0, 1]
    collapsed = collapse(tensor)
    assert collapsed is not None
    sizes, strides = collapsed
    address = tensor.data_ptr()
    kind = STRIDED
    if sizes[:3] == [1, 1, 1] and (strides[3] == 1 or size == 1):
        aligned = address % 16 == 0 and offset * itemsize % 16 == 0
        kind = ALIGNED if aligned else CONTIGUOUS
    return [address, offset, size, kind, *sizes, *strides]


_cache: OrderedDict[tuple[object, ...], Tables] = OrderedDict()


def tables(rows: Sequence[Sequence[int]], block: int, device: torch.device) -> Tables:
    """Return the tables of ``rows`` on ``device``, in blocks of ``block`` elements.

    Addresses come back from step to step, so the last tables are kept.
    """
    key = (block, device, *map(tuple, rows))
    found = _cache.get(key)
    if found is None:
        blocks = [
            (index, start)
            for index, (_, _, size, *_) in enumerate(rows)
            for start in range(0, size, block)
        ]
        found = Tables(
            _to_device(rows, NUM_COLUMNS, device),
            _to_device(blocks, 2, device),
        )
        _cache[key] = found
        if len(_cache) > _CAPACITY:
            _cache.popitem(last=False)
    _cache.move_to_end(key)
    return found


def _to_device(numbers: Sequence[Sequence[int]], columns: int, device: torch.device) -> Tensor:
    table = torch.tensor(numbers, dtype=torch.int64, device="cpu").reshape(-1, columns)
    # Copied before the call returns: the host's copy does not have to be kept.
    return table.to(device)
