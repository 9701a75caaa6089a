"""Copies between lists of tensors and flat vectors in Triton: one launch per dtype.

A launch finds the tensors through a table. It moves blocks of contiguous tensors at aligned
addresses 16 bytes at a time; ends of tensors, other alignments and other strides, element by
element.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._backend import UnsupportedError
from .._blocks import (
    MAX_PROGRAMS,
    OPTIONS,
    new_partials,
    triton_dtype,
)
from .._jit import kernel
from .._numbers import accumulator
from .tables import ALIGNED, CONTIGUOUS, Place, Table, addresses, collapse, row, tables

ALIGNMENT = 16
BLOCK = 1024

_NEW_IN_CAPTURE = "A list must be known before a device graph captures a launch over it."


@triton.jit
def _strided(rows_ptr, index, at):
    """Return the offsets of elements of a tensor, given their indices in logical order."""
    # int32 is enough: `_reachable` makes tensors of 2^31 elements or more contiguous.
    at = at.to(tl.int32)
    n1 = tl.load(rows_ptr + index * 11 + 4).to(tl.int32)
    n2 = tl.load(rows_ptr + index * 11 + 5).to(tl.int32)
    n3 = tl.load(rows_ptr + index * 11 + 6).to(tl.int32)
    i3, at = at % n3, at // n3
    i2, at = at % n2, at // n2
    i1, i0 = at % n1, at // n1
    offsets = i0.to(tl.int64) * tl.load(rows_ptr + index * 11 + 7)
    offsets += i1.to(tl.int64) * tl.load(rows_ptr + index * 11 + 8)
    offsets += i2.to(tl.int64) * tl.load(rows_ptr + index * 11 + 9)
    offsets += i3.to(tl.int64) * tl.load(rows_ptr + index * 11 + 10)
    return offsets


@kernel
def gather_kernel(
    addresses_ptr,
    rows_ptr,
    blocks_ptr,
    out_ptr,
    scale_ptr,
    base_ptr,
    partial_ptr,
    num_blocks,
    HAS_SCALE: tl.constexpr,
    HAS_BASE: tl.constexpr,
    DTYPE: tl.constexpr,
    FLAT_ALIGNMENT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write ``base + scale * tensors`` to out, and each program's part of base . out in ``ACC``.

    Rows and blocks are those of :class:`Table`; tensors have ``DTYPE``.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    total = tl.zeros([BLOCK], ACC)
    for block in range(program, num_blocks, programs):
        pair = tl.cast(block, tl.int64) * 2
        index = tl.load(blocks_ptr + pair)
        start = tl.load(blocks_ptr + pair + 1)
        offset = tl.load(rows_ptr + index * 11)
        size = tl.load(rows_ptr + index * 11 + 1)
        kind = tl.load(rows_ptr + index * 11 + 2)
        tensor_ptr = tl.load(addresses_ptr + index).to(tl.pointer_type(DTYPE))
        if (kind == 1) & (start + BLOCK <= size):
            at = tl.multiple_of(start, BLOCK) + tl.arange(0, BLOCK)
            flat_at = tl.multiple_of(offset, FLAT_ALIGNMENT) + at
            value = tl.load(tl.multiple_of(tensor_ptr, 16) + at).to(ACC)
            if HAS_SCALE:
                value *= tl.load(scale_ptr + flat_at).to(ACC)
            if HAS_BASE:
                base = tl.load(base_ptr + flat_at).to(ACC)
                value = (value + base).to(out_ptr.dtype.element_ty).to(ACC)
                total += value * base
            tl.store(out_ptr + flat_at, value.to(out_ptr.dtype.element_ty))
        else:
            at = start + tl.arange(0, BLOCK)
            inside = at < size
            available = tl.where(kind == 0, 0, size)
            flat_at = offset + at
            where = at
            if kind == 3:
                where = _strided(rows_ptr, index, at)
            value = tl.load(tensor_ptr + where, mask=at < available, other=0.0).to(ACC)
            if HAS_SCALE:
                value *= tl.load(scale_ptr + flat_at, mask=inside, other=0.0).to(ACC)
            if HAS_BASE:
                base = tl.load(base_ptr + flat_at, mask=inside, other=0.0).to(ACC)
                value = (value + base).to(out_ptr.dtype.element_ty).to(ACC)
                total += value * base
            tl.store(out_ptr + flat_at, value.to(out_ptr.dtype.element_ty), mask=inside)
    if HAS_BASE:
        tl.store(partial_ptr + program, tl.sum(total))


@kernel
def scatter_kernel(
    rows_ptr,
    blocks_ptr,
    storage_ptr,
    vector_ptr,
    scale_ptr,
    num_blocks,
    HAS_SCALE: tl.constexpr,
    DTYPE: tl.constexpr,
    FLAT_ALIGNMENT: tl.constexpr,
    ACC: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the pieces of ``scale * vector`` to contiguous tensors of ``DTYPE``.

    The tensors are in ``storage`` [bytes]; the last number of a row is the offset in it.
    """
    for block in range(tl.program_id(0), num_blocks, tl.num_programs(0)):
        pair = tl.cast(block, tl.int64) * 2
        index = tl.load(blocks_ptr + pair)
        start = tl.load(blocks_ptr + pair + 1)
        offset = tl.load(rows_ptr + index * 4)
        size = tl.load(rows_ptr + index * 4 + 1)
        kind = tl.load(rows_ptr + index * 4 + 2)
        place = tl.multiple_of(tl.load(rows_ptr + index * 4 + 3), 16)
        tensor_ptr = (storage_ptr + place).to(tl.pointer_type(DTYPE))
        if (kind == 1) & (start + BLOCK <= size):
            at = tl.multiple_of(start, BLOCK) + tl.arange(0, BLOCK)
            flat_at = tl.multiple_of(offset, FLAT_ALIGNMENT) + at
            value = tl.load(vector_ptr + flat_at).to(ACC)
            if HAS_SCALE:
                value *= tl.load(scale_ptr + flat_at).to(ACC)
            tl.store(tensor_ptr + at, value.to(DTYPE))
        else:
            at = start + tl.arange(0, BLOCK)
            inside = at < size
            value = tl.load(vector_ptr + offset + at, mask=inside, other=0.0).to(ACC)
            if HAS_SCALE:
                value *= tl.load(scale_ptr + offset + at, mask=inside, other=0.0).to(ACC)
            tl.store(tensor_ptr + at, value.to(DTYPE), mask=inside)


def _programs(table: Table) -> int:
    return min(MAX_PROGRAMS, table.blocks.shape[0])


def _reachable(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or tensor.is_contiguous():
        return tensor
    tensor = tensor.detach()
    if collapse(tensor) is None or tensor.numel() >= 2**31:
        return tensor.contiguous()
    return tensor


def _row_key(tensor: Tensor | None) -> tuple[object, ...] | None:
    """Return all that the row of a tensor depends on, except its offset in the flat vector."""
    if tensor is None:
        return None
    return tensor.dtype, tensor.shape, tensor.stride(), tensor.data_ptr() % ALIGNMENT == 0


def gather(
    tensors: Sequence[Tensor | None],
    shapes: Sequence[torch.Size],
    out: Tensor,
    scale: Tensor | None = None,
    base: Tensor | None = None,
) -> Tensor | None:
    sizes = [shape.numel() for shape in shapes]
    # Copies may be freed after the launch: the device's allocator is ordered by the stream.
    tensors = [_reachable(tensor) for tensor in tensors]

    def rows() -> list[tuple[int, torch.dtype, list[int]]]:
        # Missing tensors go into the launch of the first dtype.
        first = next((tensor.dtype for tensor in tensors if tensor is not None), out.dtype)
        found, offset = [], 0
        for index, (tensor, size) in enumerate(zip(tensors, sizes, strict=True)):
            if tensor is not None and tensor.numel() != size:
                raise ValueError(f"A tensor must have {size} elements, got {tensor.numel()}.")
            if size:
                dtype = first if tensor is None else tensor.dtype
                found.append((index, dtype, row(tensor, offset, size, out.element_size())))
            offset += size
        return found

    place = Place.of(out)
    key = out.dtype, tuple(sizes), tuple(map(_row_key, tensors))
    found = tables(key, rows, BLOCK, place)
    if found is None:
        raise UnsupportedError(_NEW_IN_CAPTURE)
    count = sum(map(_programs, found))
    partials = None if base is None else new_partials(count, out)
    done = 0
    for table in found:
        members = (tensors[index] for index in table.members)
        programs = _programs(table)
        gather_kernel[(programs,)](
            addresses(
                tuple(0 if tensor is None else tensor.data_ptr() for tensor in members), place
            ),
            table.rows,
            table.blocks,
            out,
            scale,
            base,
            None if partials is None else partials[done : done + programs],
            table.blocks.shape[0],
            scale is not None,
            base is not None,
            triton_dtype(table.dtype),
            ALIGNMENT // out.element_size(),
            triton_dtype(accumulator(torch.promote_types(out.dtype, table.dtype))),
            BLOCK,
            **OPTIONS,
        )
        done += programs
    if partials is not None and not found:
        return partials.new_zeros(1)
    return partials


class _Storage(NamedTuple):
    """Byte offsets of the tensors of a list in one allocation, and its size."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    size: int


@lru_cache
def _storage(shapes: tuple[torch.Size, ...], dtypes: tuple[torch.dtype, ...]) -> _Storage:
    starts, stops, used = [], [], 0
    for shape, dtype in zip(shapes, dtypes, strict=True):
        starts.append(used)
        stops.append(used + shape.numel() * dtype.itemsize)
        used = triton.cdiv(stops[-1], ALIGNMENT) * ALIGNMENT
    return _Storage(tuple(starts), tuple(stops), used)


def scatter(
    vector: Tensor,
    shapes: Sequence[torch.Size],
    dtypes: Sequence[torch.dtype],
    scale: Tensor | None = None,
    out: Tensor | None = None,
) -> Sequence[Tensor]:
    # `out` is not used: a new allocation gives addresses divisible by 16.
    shapes, dtypes = tuple(shapes), tuple(dtypes)
    storage = _storage(shapes, dtypes)

    def rows() -> list[tuple[int, torch.dtype, list[int]]]:
        found, offset = [], 0
        for index, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True)):
            size = shape.numel()
            aligned = offset * vector.element_size() % ALIGNMENT == 0
            kind = ALIGNED if aligned else CONTIGUOUS
            if size:
                found.append((index, dtype, [offset, size, kind, storage.starts[index]]))
            offset += size
        return found

    found = tables((vector.dtype, shapes, dtypes), rows, BLOCK, Place.of(vector))
    if found is None:
        raise UnsupportedError(_NEW_IN_CAPTURE)
    memory = torch.empty(storage.size, dtype=torch.uint8, device=vector.device)
    for table in found:
        scatter_kernel[(_programs(table),)](
            table.rows,
            table.blocks,
            memory,
            vector,
            scale,
            table.blocks.shape[0],
            scale is not None,
            triton_dtype(table.dtype),
            ALIGNMENT // vector.element_size(),
            triton_dtype(accumulator(vector.dtype)),
            BLOCK,
            **OPTIONS,
        )
    return [
        memory[start:stop].view(dtype).view(shape)
        for start, stop, dtype, shape in zip(*storage[:2], dtypes, shapes, strict=True)
    ]
