"""Tensors split into equal chunks, one per process."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunks:
    """Split of flattened tensors into one chunk per process.

    All chunks of a tensor have the same length; the last ones are padded with zeros. Entry ``i`` is
    in chunk ``i // length``, as with ``torch.chunk`` and a sharded ``DTensor``.

    Attributes:
        sizes: number of entries of each tensor.
        rank: rank of this process.
        num_ranks: number of processes, and of chunks per tensor.
    """

    sizes: tuple[int, ...]
    rank: int
    num_ranks: int

    @classmethod
    def of_lengths(cls, lengths: Sequence[int], rank: int, num_ranks: int) -> "Chunks":
        """Return the split of tensors whose chunks need no padding."""
        return cls(tuple(length * num_ranks for length in lengths), rank, num_ranks)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Length of a chunk of each tensor, including padding."""
        return tuple(-(-size // self.num_ranks) for size in self.sizes)

    @property
    def own(self) -> tuple[int, ...]:
        """Number of entries of each tensor in this process's chunk."""
        return tuple(
            min(max(size - self.rank * length, 0), length)
            for size, length in zip(self.sizes, self.lengths, strict=True)
        )

    def pack(
        self, tensors: Sequence[Tensor | None], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return [num_ranks, sum of lengths]: each row has the chunks of one process.

        A missing tensor counts as zeros, and missing entries of a tensor do too.
        """
        packed = torch.zeros(self.num_ranks, sum(self.lengths), dtype=dtype, device=device)
        columns = torch.split(packed, list(self.lengths), dim=1)
        for tensor, column, length in zip(tensors, columns, self.lengths, strict=True):
            if tensor is None or tensor.numel() == 0:
                continue
            flat = tensor.detach().reshape(-1)
            num_full, rest = divmod(flat.numel(), length)
            column[:num_full].copy_(flat[: num_full * length].view(num_full, length))
            if rest:
                column[num_full, :rest].copy_(flat[num_full * length :])
        return packed

    def unpack(self, packed: Tensor) -> list[Tensor]:
        """Undo :meth:`pack`: return the flat tensors in ``packed`` [num_ranks, sum of lengths]."""
        columns = torch.split(packed, list(self.lengths), dim=1)
        return [column.reshape(-1)[:size] for column, size in zip(columns, self.sizes, strict=True)]
