"""What Triton's interpreter does not notice: accesses out of bounds, races, undefined lanes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import TensorHandle


class ViolationError(AssertionError):
    """A kernel did what a device need not forgive."""


_NOBODY, _SEVERAL = -1, -2


@dataclass
class _Extent:
    """The bytes that one tensor spans."""

    name: str
    start: int
    stop: int


class _Storage:
    """Who has read and written each byte of a storage in this launch."""

    def __init__(self, name: str, storage: torch.UntypedStorage) -> None:
        self.name = name
        self.start = storage.data_ptr()
        self.stop = self.start + storage.nbytes()
        self.writer = np.full(storage.nbytes(), _NOBODY, np.int32)
        self.reader = np.full(storage.nbytes(), _NOBODY, np.int32)

    def _conflict(self, who: np.ndarray, at: np.ndarray, program: int) -> str | None:
        others = (who[at] != _NOBODY) & (who[at] != program)
        if not others.any():
            return None
        other, byte = who[at][others][0], at[others][0]
        name = "several others" if other == _SEVERAL else f"program {other}"
        return f"{name} ({self.name!r}, byte {byte})"

    def load(self, at: np.ndarray, program: int) -> None:
        if conflict := self._conflict(self.writer, at, program):
            raise ViolationError(f"Program {program} reads what was written by {conflict}.")
        mine = (self.reader[at] == _NOBODY) | (self.reader[at] == program)
        self.reader[at] = np.where(mine, program, _SEVERAL)

    def store(self, at: np.ndarray, program: int) -> None:
        if np.unique(at).size != at.size:
            raise ViolationError(
                f"Program {program} stores to one element from several lanes ({self.name!r})."
            )
        if conflict := self._conflict(self.writer, at, program):
            raise ViolationError(f"Program {program} writes what was written by {conflict}.")
        if conflict := self._conflict(self.reader, at, program):
            raise ViolationError(f"Program {program} writes what was read by {conflict}.")
        self.writer[at] = program


def _named_tensors(name: str, value: object) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _named_tensors(f"{name}[{index}]", item)
    elif hasattr(value, "base") and hasattr(value, "block_shape"):
        yield from _named_tensors(name, value.base)


class Memory:
    """The memory that one launch may touch, and who has touched it.

    Args:
        arguments: of the launch. Each tensor allows its own span, not that of its storage.
        written: the names of arguments that are written to are added here.
        races: whether to raise when two programs touch an element that one of them writes.
    """

    def __init__(self, arguments: Mapping[str, object], written: set[str], *, races: bool) -> None:
        self._written = written
        self._races = races
        self._extents: list[_Extent] = []
        self._storages: dict[int, _Storage] = {}
        for argument, value in arguments.items():
            for name, tensor in _named_tensors(argument, value):
                self._allow(name, tensor)

    def _allow(self, name: str, tensor: torch.Tensor) -> None:
        if tensor.numel() == 0:
            return
        last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        start = tensor.data_ptr()
        self._extents.append(_Extent(name, start, start + (last + 1) * tensor.element_size()))
        storage = tensor.untyped_storage()
        self._storages.setdefault(storage.data_ptr(), _Storage(name, storage))

    def touch(self, kind: str, pointers: TensorHandle, mask: np.ndarray, program: int) -> None:
        """Check the addresses of unmasked lanes.

        Args:
            kind: "load", "store" or "atomic". Atomic operations never race.
            pointers: of all lanes.
            mask: of the lanes that count.
            program: its number in the launch.
        """
        itemsize = interpreter._get_np_dtype(pointers.get_element_ty()).itemsize
        addresses = np.asarray(pointers.data)
        lanes = np.broadcast_to(np.asarray(mask, dtype=bool), addresses.shape)
        addresses = addresses[lanes].astype(np.int64)
        if addresses.size == 0:
            return
        self._check_bounds(kind, addresses, itemsize, program)
        if kind != "load":
            self._note_written(addresses)
        if self._races and kind != "atomic":
            for storage in self._storages.values():
                inside = (addresses >= storage.start) & (addresses < storage.stop)
                if inside.any():
                    getattr(storage, kind)(addresses[inside] - storage.start, program)

    def _note_written(self, addresses: np.ndarray) -> None:
        for extent in self._extents:
            if ((addresses >= extent.start) & (addresses < extent.stop)).any():
                self._written.add(extent.name)

    def _check_bounds(self, kind: str, addresses: np.ndarray, itemsize: int, program: int) -> None:
        allowed = np.zeros(addresses.shape, dtype=bool)
        for extent in self._extents:
            allowed |= (addresses >= extent.start) & (addresses + itemsize <= extent.stop)
        if allowed.all():
            return
        bad = int(addresses[~allowed][0])
        where = "no tensor is an argument"
        if self._extents:
            near = min(self._extents, key=lambda e: min(abs(bad - e.start), abs(bad - e.stop)))
            where = (
                f"the first is {bad - near.start} bytes from the start of {near.name!r}, "
                f"which has {near.stop - near.start}"
            )
        raise ViolationError(
            f"Program {program}: {kind} out of bounds in {int((~allowed).sum())} lanes; {where}."
        )


def undefined_like(pointers: TensorHandle) -> TensorHandle:
    """Return what masked lanes of a load without ``other=`` hold here: NaN or a huge number."""
    element = pointers.get_element_ty()
    dtype = interpreter._get_np_dtype(element)
    value: object
    if element == tl.bfloat16:
        value = 0x7FC0
    elif dtype.kind == "f":
        value = np.nan
    else:
        value = True if dtype.kind == "b" else np.iinfo(dtype).max // 3
    return TensorHandle(np.full_like(pointers.data, value, dtype=dtype), element)
