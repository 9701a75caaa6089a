"""Tensors cut into equal chunks, one for each process."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chunks:
    """How tensors, taken flat, are cut into as many chunks as there are processes.

    The chunks of a tensor are as long as each other but for the last ones, which are padded with
    zeros: a tensor's ``i``-th entry is in chunk ``i // length``. It is the rule of ``torch.chunk``
    and of a ``DTensor`` that is sharded.

    Attributes:
        sizes: number of entries of each tensor.
        rank: whose chunks are this process's.
        num_ranks: chunks per tensor.
    """

    sizes: tuple[int, ...]
    rank: int
    num_ranks: int

    @classmethod
    def of_lengths(cls, lengths: Sequence[int], rank: int, num_ranks: int) -> "Chunks":
        """Return the chunks of tensors that fill theirs."""
        return cls(tuple(length * num_ranks for length in lengths), rank, num_ranks)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Length of a chunk of each tensor, with its padding."""
        return tuple(-(-size // self.num_ranks) for size in self.sizes)

    @property
    def own(self) -> tuple[int, ...]:
        """Entries of each tensor that are in this process's chunk."""
        return tuple(
            min(max(size - self.rank * length, 0), length)
            for size, length in zip(self.sizes, self.lengths, strict=True)
        )

    def pack(
        self, tensors: Sequence[Tensor | None], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return [num_ranks, sum of lengths]: in each row the chunks of one process.

        A missing tensor counts as zeros, and so does what one has too few entries for.
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
        """Return the tensors, flat, of what :meth:`pack` gave [num_ranks, sum of lengths]."""
        columns = torch.split(packed, list(self.lengths), dim=1)
        return [column.reshape(-1)[:size] for column, size in zip(columns, self.sizes, strict=True)]
