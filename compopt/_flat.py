"""A list of tensors as one flat vector, and views back."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compopt.kernels import gather, pieces


@dataclass(frozen=True)
class FlatLayout:
    """Where each tensor of a list lies in one flat vector.

    Elements are in the logical (row-major) order of each tensor whatever its strides, so a
    ``channels_last`` and a contiguous tensor of equal values give the same vector.

    Attributes:
        shapes: shape of each tensor.
        sizes: number of elements of each tensor.
        dtypes: of each tensor.
        dtype: of the flat vector: the widest of the tensors' dtypes and at least float32, because
            inner products over millions of half-precision entries lose all their digits.
        device: of all tensors.
    """

    shapes: tuple[torch.Size, ...]
    sizes: tuple[int, ...]
    dtypes: tuple[torch.dtype, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> "FlatLayout":
        """Return the layout of ``tensors``, which must be on one device."""
        shapes = tuple(tensor.shape for tensor in tensors)
        return cls.with_shapes(shapes, [tensor.dtype for tensor in tensors], tensors[0].device)

    @classmethod
    def with_shapes(
        cls, shapes: Sequence[torch.Size], dtypes: Sequence[torch.dtype], device: torch.device
    ) -> "FlatLayout":
        """Return the layout of tensors of these shapes."""
        dtype = torch.float32
        for other in set(dtypes):
            dtype = torch.promote_types(dtype, other)
        sizes = tuple(shape.numel() for shape in shapes)
        return cls(tuple(shapes), sizes, tuple(dtypes), dtype, device)

    @functools.cached_property
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
        gather(tensors, self.shapes, out, scale)
        return out

    def views(self, vector: Tensor) -> Sequence[Tensor]:
        """Return one view of ``vector`` [numel] per tensor, each in that tensor's shape."""
        return pieces(vector, self.shapes)
