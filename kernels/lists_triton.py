"""Lists of tensors and flat vectors in Triton: one launch for a list, through a table.

Tensors of one dtype go in one launch. A block of a contiguous tensor at an aligned address is
moved 16 bytes at a time; ends of tensors, other alignments and other strides go element by element.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .blocks_triton import (
    MAX_PROGRAMS,
    OPTIONS,
    accumulator,
    new_partials,
    triton_dtype,
)
from .jit import kernel
from .tables import ALIGNED, CONTIGUOUS, Tables, collapse, row, tables

ALIGNMENT = 16
BLOCK = 1024


@triton.jit
def _address(rows_ptr, index, DTYPE: tl.constexpr):
    return tl.load(rows_ptr + index * 12).to(tl.pointer_type(DTYPE))


@triton.jit
def _strided(rows_ptr, index, at):
    """Return the offsets of elements of a tensor, given their numbers in logical order."""
    # Within one tensor of less than 2^31 elements: the launcher sees to that.
    at = at.to(tl.int32)
    n1 = tl.load(rows_ptr + index * 12 + 5).to(tl.int32)
    n2 = tl.load(rows_ptr + index * 12 + 6).to(tl.int32)
    n3 = tl.load(rows_ptr + index * 12 + 7).to(tl.int32)
    i3, at = at % n3, at // n3
    i2, at = at % n2, at // n2
    i1, i0 = at % n1, at // n1
    offsets = i0.to(tl.int64) * tl.load(rows_ptr + index * 12 + 8)
    offsets += i1.to(tl.int64) * tl.load(rows_ptr + index * 12 + 9)
    offsets += i2.to(tl.int64) * tl.load(rows_ptr + index * 12 + 10)
    offsets += i3.to(tl.int64) * tl.load(rows_ptr + index * 12 + 11)
    return offsets


@kernel
def gather_kernel(
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
    """Write ``base + scale * tensors`` to out; each program's part of base . out in ``ACC``.

    Rows and blocks are those of :class:`Tables`; tensors are of ``DTYPE``.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    total = tl.zeros([BLOCK], ACC)
    for block in range(program, num_blocks, programs):
        pair = tl.cast(block, tl.int64) * 2
        index = tl.load(blocks_ptr + pair)
        start = tl.load(blocks_ptr + pair + 1)
        offset = tl.load(rows_ptr + index * 12 + 1)
        size = tl.load(rows_ptr + index * 12 + 2)
        kind = tl.load(rows_ptr + index * 12 + 3)
        tensor_ptr = _address(rows_ptr, index, DTYPE)
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
    room_ptr,
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

    The tensors lie in the room [bytes]; rows have the places in it for addresses.
    """
    for block in range(tl.program_id(0), num_blocks, tl.num_programs(0)):
        pair = tl.cast(block, tl.int64) * 2
        index = tl.load(blocks_ptr + pair)
        start = tl.load(blocks_ptr + pair + 1)
        offset = tl.load(rows_ptr + index * 12 + 1)
        size = tl.load(rows_ptr + index * 12 + 2)
        kind = tl.load(rows_ptr + index * 12 + 3)
        place = tl.multiple_of(tl.load(rows_ptr + index * 12), 16)
        tensor_ptr = (room_ptr + place).to(tl.pointer_type(DTYPE))
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


def _launches(
    rows: Sequence[tuple[torch.dtype, list[int]]], device: torch.device
) -> list[tuple[torch.dtype, Tables, int]]:
    """Return dtype, tables and number of programs of each launch."""
    groups: dict[torch.dtype, list[list[int]]] = {}
    for dtype, entry in rows:
        groups.setdefault(dtype, []).append(entry)
    launches = []
    for dtype, group in groups.items():
        table = tables(group, BLOCK, device)
        launches.append((dtype, table, min(MAX_PROGRAMS, table.blocks.shape[0])))
    return launches


def _reachable(tensor: Tensor | None) -> Tensor | None:
    if tensor is None:
        return None
    tensor = tensor.detach()
    if collapse(tensor) is None or (tensor.numel() >= 2**31 and not tensor.is_contiguous()):
        return tensor.contiguous()
    return tensor


def gather(
    tensors: Sequence[Tensor | None],
    sizes: Sequence[int],
    out: Tensor,
    scale: Tensor | None = None,
    base: Tensor | None = None,
) -> Tensor | None:
    """As :func:`lists_reference.gather`. One launch for each dtype among ``tensors``."""
    # Copies, if any, live until the launch: the device's allocator is ordered by the stream.
    reachable = [_reachable(tensor) for tensor in tensors]
    # Missing tensors go with the first launch.
    present = [tensor.dtype for tensor in tensors if tensor is not None]
    rows, offset = [], 0
    for tensor, size in zip(reachable, sizes, strict=True):
        dtype = (present or [out.dtype])[0] if tensor is None else tensor.dtype
        if tensor is not None and tensor.numel() != size:
            raise ValueError(f"A tensor must have {size} elements, got {tensor.numel()}.")
        if size:
            rows.append((dtype, row(tensor, offset, size, out.element_size())))
        offset += size
    launches = _launches(rows, out.device)
    count = sum(programs for _, _, programs in launches)
    partials = None if base is None else new_partials(count, out)
    done = 0
    for dtype, table, programs in launches:
        gather_kernel[(programs,)](
            table.rows,
            table.blocks,
            out,
            scale,
            base,
            None if partials is None else partials[done : done + programs],
            table.blocks.shape[0],
            scale is not None,
            base is not None,
            triton_dtype(dtype),
            ALIGNMENT // out.element_size(),
            triton_dtype(accumulator(torch.promote_types(out.dtype, dtype))),
            BLOCK,
            **OPTIONS,
        )
        done += programs
    if partials is not None and not launches:
        return partials.new_zeros(1)
    return partials


def scatter(
    vector: Tensor,
    shapes: Sequence[torch.Size],
    dtypes: Sequence[torch.dtype],
    scale: Tensor | None = None,
    out: Tensor | None = None,
) -> list[Tensor]:
    """As :func:`lists_reference.scatter`, with tensors at addresses divisible by 16.

    One launch for each dtype among ``dtypes``; ``out`` is not used.
    """
    rows, places, used, offset = [], [], 0, 0
    for shape, dtype in zip(shapes, dtypes, strict=True):
        size = shape.numel()
        aligned = offset * vector.element_size() % ALIGNMENT == 0
        kind = ALIGNED if aligned else CONTIGUOUS
        if size:
            rows.append((dtype, [used, offset, size, kind, 1, 1, 1, size, 0, 0, 0, 1]))
        places.append((used, used + size * dtype.itemsize))
        used += triton.cdiv(size * dtype.itemsize, ALIGNMENT) * ALIGNMENT
        offset += size
    room = torch.empty(used, dtype=torch.uint8, device=vector.device)
    for dtype, table, programs in _launches(rows, vector.device):
        scatter_kernel[(programs,)](
            table.rows,
            table.blocks,
            room,
            vector,
            scale,
            table.blocks.shape[0],
            scale is not None,
            triton_dtype(dtype),
            ALIGNMENT // vector.element_size(),
            triton_dtype(accumulator(vector.dtype)),
            BLOCK,
            **OPTIONS,
        )
    return [
        room[start:stop].view(dtype).view(shape)
        for (start, stop), dtype, shape in zip(places, dtypes, shapes, strict=True)
    ]
