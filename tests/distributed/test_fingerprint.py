"""Numbers that stand for the bits of tensors."""

import itertools

import pytest
import torch

from compopt.distributed import fingerprint
from compopt.distributed.fingerprint import fingerprints

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)


def number(tensor):
    return fingerprints([tensor])[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_single_bit_counts(dtype, monkeypatch):
    monkeypatch.setattr(fingerprint, "BLOCK", 8)
    tensor = torch.randn(5, 5).to(dtype)
    numbers = {number(tensor)}
    size = 1 if dtype is torch.bool else tensor.element_size() * 8
    for index, bit in itertools.product(range(25), range(size)):
        changed = tensor.clone()
        changed.view(torch.uint8).view(-1)[index * tensor.element_size() + bit // 8] ^= 1 << bit % 8
        numbers.add(number(changed))
    assert len(numbers) == 1 + 25 * size


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_every_swap_counts(dtype, monkeypatch):
    monkeypatch.setattr(fingerprint, "BLOCK", 16)
    tensor = torch.arange(1.0, 41.0).to(dtype)
    numbers = {number(tensor)}
    pairs = list(itertools.combinations(range(40), 2))
    for pair in pairs:
        swapped = tensor.clone()
        swapped[list(pair)] = tensor[list(reversed(pair))]
        numbers.add(number(swapped))
    assert len(numbers) == 1 + len(pairs)


@pytest.mark.parametrize("distance", [2**k for k in range(0, 20, 3)])
def test_distant_entries_that_differ_in_their_highest_bits_alone(distance):
    tensor = torch.ones(2**20, dtype=torch.float64)
    tensor[0] = 2.0
    assert number(tensor) != number(tensor.roll(distance))


def test_moves_do_not_cancel():
    a, b = 0.1, 0.7
    alike = [[a, b, b, a, b, a, a, b], [b, a, a, b, a, b, b, a]]
    assert len({number(torch.tensor(values)) for values in alike}) == 2
    matrix = torch.randn(6, 6)
    orders = list(itertools.islice(itertools.permutations(range(6)), 0, 720, 7))
    assert len({number(matrix[list(order)]) for order in orders}) == len(orders)


def test_zeros_and_what_is_missing_are_zero():
    nothing = [None, torch.zeros(3), torch.zeros(0), torch.zeros(()), torch.zeros(2, 3).bfloat16()]
    assert fingerprints(nothing) == [0] * 5
    assert fingerprints([]) == []


def test_equal_bits_have_equal_numbers():
    matrix = torch.randn(7, 9)
    matrix[2, 3] = torch.nan
    several = fingerprints([matrix, torch.ones(1000), matrix.clone(), matrix.T.contiguous().T])
    assert several[0] == several[2] == several[3] == number(matrix)
    assert number(torch.zeros(3)) != number(-torch.zeros(3))
