"""Hash values to compare the bits of tensors between processes."""

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

BLOCK = 2**18
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}


def number_of(data: bytes) -> int:
    """Return a 64-bit hash of ``data``, as a signed integer."""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little", signed=True)


def fingerprints(tensors: Sequence[Tensor | None]) -> list[int]:
    """Return a 64-bit hash of the bits of each tensor: 0 for all zeros and for None.

    Tensors that differ in a single word of up to 32 bits always have different hashes. For other
    differences (permuted entries or rows, a NaN), at most one case in 2^31 has equal hashes.

    Args:
        tensors: dense, of any shape, dtype and device. Shapes and dtypes are not hashed.

    Cost: three passes over each tensor, and one read from each device.
    """
    numbers = [0] * len(tensors)
    largest = max((tensor.nbytes for tensor in tensors if tensor is not None), default=0)
    sums: dict[torch.device, list[tuple[int, Tensor]]] = {}
    weights: dict[torch.device, Tensor] = {}
    for index, tensor in enumerate(tensors):
        if tensor is None or tensor.numel() == 0:
            continue
        if tensor.device not in weights:
            length = min(largest, BLOCK)
            weights[tensor.device] = _mixed(torch.arange(1, length + 1, device=tensor.device))
        total = _weighted_sum(tensor.detach(), weights[tensor.device])
        sums.setdefault(tensor.device, []).append((index, total))
    for pairs in sums.values():
        values = torch.stack([total for _, total in pairs]).tolist()
        for (index, _), value in zip(pairs, values, strict=True):
            numbers[index] = value
    return numbers


def _weighted_sum(tensor: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of the words of ``tensor``, each times an odd weight, modulo 2^64."""
    flat = tensor.contiguous().reshape(-1)
    # Words have at most 32 bits: a difference of two words times a difference of two weights is
    # then a multiple of 2^64 only if the weights agree in half of their bits.
    words = flat.view(_WORDS[flat.element_size()])
    blocks = torch.split(words, BLOCK)
    sums = torch.stack([(block.long() * weights[: len(block)]).sum() for block in blocks])
    of_blocks = torch.arange(-len(blocks), 0, device=tensor.device)
    return (sums * _mixed(of_blocks)).sum()


def _mixed(index: Tensor) -> Tensor:
    """Return a pseudorandom odd 64-bit number for each index."""
    # The finalizer of SplitMix64. With evenly spaced weights, permutations of entries could cancel.
    index = index * -7046029254386353131
    index = (index ^ (index >> 30)) * -4658895280553007687
    index = (index ^ (index >> 27)) * -7723592293110705685
    return (index ^ (index >> 31)) | 1
