"""A list of tensors as one flat vector, and views back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compopt.kernels import gather


@dataclass(frozen=True)
class FlatLayout:
    """Where each tensor of a list lies in one flat vector.

    Elements are in the logical (row-major) order of each tensor whatever its strides, so a
    ``channels_last`` and a contiguous tensor of equal values give the same vector.

    Attributes:
        shapes: shape of each tensor.
        sizes: number of elements of each tensor.
        dtype: of the flat vector: the widest of the tensors' dtypes and at least float32, because
            inner products over millions of half-precision entries lose all their digits.
        device: of all tensors.
    """

    shapes: tuple[torch.Size, ...]
    sizes: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "FlatLayout":
        """Return the layout of ``tensors``, which must be on one device."""
        dtype = torch.float32
        for other in {tensor.dtype for tensor in tensors}:
            dtype = torch.promote_types(dtype, other)
        return cls(
            shapes=tuple(tensor.shape for tensor in tensors),
            sizes=tuple(tensor.numel() for tensor in tensors),
            dtype=dtype,
            device=tensors[0].device,
        )

    @property
    def numel(self) -> int:
        """Length of the flat vector."""
        return sum(self.sizes)

    def flatten(
        self,
        tensors: Sequence[Tensor | None],
        out: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Copy ``tensors`` into a flat vector [numel]; a missing one counts as zeros.

        Args:
            tensors: one per tensor of the layout.
            out: [numel] where to write, a new vector if None.
            scale: [numel] multiplies the entries, in the same pass.
        """
        if out is None:
            out = torch.empty(self.numel, dtype=self.dtype, device=self.device)
        gather(tensors, self.sizes, out, scale)
        return out

    def views(self, vector: Tensor) -> list[Tensor]:
        """Return one view of ``vector`` [numel] per tensor, each in that tensor's shape."""
        pieces = torch.split(vector, list(self.sizes))
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]
