"""Offsets above 2^31: the addresses that the last programs of a launch would touch.

Nothing is read or written: loads and stores only note addresses.
"""

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import GridExecutor, InterpreterBuilder, TensorHandle

from compopt.kernels import adaptive_triton, blocks_triton, cg_triton

N = 2**31 + 5
BLOCK = 1 << 16


class _Noted:
    """Addresses of unmasked lanes, by array."""

    def __init__(self) -> None:
        self.highest = {}

    def note(self, pointers, mask):
        addresses = np.asarray(pointers.data)[np.asarray(mask.data, dtype=bool)].astype(np.int64)
        for start in self.highest:
            mine = addresses[(addresses >= start) & (addresses < start + 2**40)]
            if mine.size:
                self.highest[start] = max(self.highest[start], int(mine.max()))


@pytest.fixture
def noted(monkeypatch):
    found = _Noted()

    def load(self, pointers, mask, other, *rest):
        found.note(pointers, mask)
        dtype = interpreter._get_np_dtype(pointers.get_element_ty())
        return TensorHandle(np.ones(pointers.data.shape, dtype), pointers.get_element_ty())

    def store(self, pointers, value, mask, *rest):
        found.note(pointers, mask)

    monkeypatch.setattr(InterpreterBuilder, "create_masked_load", load)
    monkeypatch.setattr(InterpreterBuilder, "create_masked_store", store)
    return found


class _Address:
    """A vector without memory, at a chosen address."""

    dtype = torch.float32

    def __init__(self, address):
        self._address = address

    def data_ptr(self):
        return self._address


def at(address, found):
    found.highest[address] = -1
    return _Address(address)


@pytest.fixture(autouse=True)
def _last_of_many_programs(monkeypatch):
    def number(value):
        return lambda self, axis: TensorHandle(np.array([value], np.int32), tl.int32)

    # This one takes the end of the vector, besides every so many blocks.
    count = 4096
    last = number(N // BLOCK % count)
    monkeypatch.setattr(InterpreterBuilder, "create_get_num_programs", number(count))
    monkeypatch.setattr(InterpreterBuilder, "create_get_program_id", last)
    # Arguments that are no tensors are not copied to the host and back.
    monkeypatch.setattr(GridExecutor, "_init_args_hst", lambda self, args, kwargs: (args, kwargs))
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda self, *args: None)


def test_the_last_element_is_reached(noted):
    starts = [k << 41 for k in (1, 2, 3)]
    p, r, state = (at(start, noted) for start in starts)
    cg_triton.cg_direction_kernel[(1,)](p, r, state, N, N // BLOCK, tl.float32, BLOCK)
    for start in starts[:2]:
        assert noted.highest[start] == start + 4 * (N - 1)


def test_the_last_element_of_a_set_up_is_reached(noted):
    starts = [k << 41 for k in (1, 2)]
    average, grad = (at(start, noted) for start in starts)
    adaptive_triton.average_squares_kernel[(1,)](
        average, grad, None, 0.5, 0.5, N, N // BLOCK, False, tl.float32, BLOCK
    )
    for start in starts:
        assert noted.highest[start] == start + 4 * (N - 1)


def test_offsets_are_formed_in_64_bits():
    # The one place where they are.
    assert blocks_triton.lanes is cg_triton.lanes is adaptive_triton.lanes
