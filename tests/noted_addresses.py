"""Launches that touch no memory: loads and stores only note the addresses they would reach.

Loads give ones, or what a table holds. One program is run, of any number in a grid of any size.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle


class Address:
    """A tensor without memory, at an address."""

    def __init__(self, address: int, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self._address = address

    def data_ptr(self) -> int:
        return self._address


class Noted:
    """What a launch would touch, by tensor; each is far from the others.

    Attributes:
        highest: largest address that was touched, by the address of the tensor; -1 for none.
    """

    def __init__(self) -> None:
        self.highest: dict[int, int] = {}
        self._tables: dict[int, np.ndarray] = {}

    def tensor(self, dtype: torch.dtype = torch.float32) -> Address:
        """Return a tensor of any size."""
        start = (len(self.highest) + len(self._tables) + 1) << 41
        self.highest[start] = -1
        return Address(start, dtype)

    def table(self, numbers: Sequence[float], dtype: torch.dtype = torch.int64) -> Address:
        """Return a tensor that holds ``numbers``."""
        start = (len(self.highest) + len(self._tables) + 1) << 41
        self._tables[start] = torch.tensor(numbers, dtype=dtype).numpy()
        return Address(start, dtype)

    def last(self, tensor: Address, itemsize: int = 4) -> int:
        """Return the number of the last element that was touched."""
        start = tensor.data_ptr()
        assert self.highest[start] >= start
        return (self.highest[start] - start) // itemsize

    def _note(self, pointers: TensorHandle, mask: TensorHandle) -> None:
        lanes = np.broadcast_to(np.asarray(mask.data, dtype=bool), np.shape(pointers.data))
        addresses = np.asarray(pointers.data)[lanes].astype(np.int64)
        found = np.zeros(addresses.shape, dtype=bool)
        for start in self.highest:
            mine = (addresses >= start) & (addresses < start + 2**40)
            found |= mine
            if mine.any():
                self.highest[start] = max(self.highest[start], int(addresses[mine].max()))
        assert found.all(), "an address is outside all tensors"

    def load(self, pointers: TensorHandle, mask: TensorHandle) -> TensorHandle:
        element = pointers.get_element_ty()
        dtype = interpreter._get_np_dtype(element)
        for start, numbers in self._tables.items():
            places = (np.asarray(pointers.data).astype(np.int64) - start) // numbers.itemsize
            if (places >= 0).all() and (places < len(numbers)).all():
                return TensorHandle(numbers[places].astype(dtype), element)
        self._note(pointers, mask)
        return TensorHandle(np.ones(np.shape(pointers.data), dtype), element)

    def store(self, pointers: TensorHandle, mask: TensorHandle) -> None:
        self._note(pointers, mask)


def note_addresses(
    monkeypatch: pytest.MonkeyPatch, program: Sequence[int], programs: Sequence[int]
) -> Noted:
    """Let launches run one program of a grid and note addresses.

    Args:
        monkeypatch: undoes it.
        program: its number along each axis.
        programs: of the grid along each axis.
    """
    noted = Noted()

    def number(values: Sequence[int]):
        return lambda self, axis: TensorHandle(np.array([values[axis]], np.int32), tl.int32)

    for name, replacement in (
        ("create_masked_load", lambda self, at, mask, *rest: noted.load(at, mask)),
        ("create_masked_store", lambda self, at, value, mask, *rest: noted.store(at, mask)),
        ("create_get_num_programs", number(programs)),
        ("create_get_program_id", number(program)),
    ):
        monkeypatch.setattr(InterpreterBuilder, name, replacement)
    # Arguments that are no tensors are not copied to the host and back.
    monkeypatch.setattr(GridExecutor, "_init_args_hst", lambda self, args, kwargs: (args, kwargs))
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda self, *args: None)
    return noted
