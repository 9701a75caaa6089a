"""Lists of tensors as one flat vector, views of it, and reusable work vectors."""

import functools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compopt._typing import K
from compopt.kernels import gather, pieces


# Compared by identity: comparing all shapes would take longer.
@dataclass(frozen=True, eq=False)
class FlatLayout:
    """Position of each tensor of a list in one flat vector.

    Elements are in the logical (row-major) order of each tensor, whatever its strides: a
    ``channels_last`` and a contiguous tensor of equal values give the same vector.

    Attributes:
        shapes: shape of each tensor.
        sizes: number of elements of each tensor.
        dtypes: dtype of each tensor.
        dtype: dtype of the flat vector: the widest of ``dtypes``, and at least float32, because
            inner products over millions of half-precision entries lose all their digits.
        device: device of all tensors.
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

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def joined(*layouts: "FlatLayout") -> "FlatLayout":
        """Return the layout of all tensors of ``layouts``, in order."""
        shapes = [shape for layout in layouts for shape in layout.shapes]
        dtypes = [dtype for layout in layouts for dtype in layout.dtypes]
        return FlatLayout.with_shapes(shapes, dtypes, layouts[0].device)

    def new_vector(self) -> Tensor:
        """Return a new uninitialized vector [numel]."""
        return torch.empty(self.numel, dtype=self.dtype, device=self.device)

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
            out: [numel] vector to write to; a new one if None.
            scale: [numel] factors for the entries, applied in the same pass.
        """
        if out is None:
            out = self.new_vector()
        gather(tensors, self.shapes, out, scale)
        return out

    def views(self, vector: Tensor) -> Sequence[Tensor]:
        """Return one view of ``vector`` [numel] per tensor, each in that tensor's shape."""
        return pieces(vector, self.shapes)


def split_players(joined: Tensor, layouts: Mapping[K, FlatLayout]) -> dict[K, Tensor]:
    """Return the players' parts of a joined vector, as views. Ignore entries after the last."""
    parts, start = {}, 0
    for player, layout in layouts.items():
        parts[player] = joined[start : start + layout.numel]
        start += layout.numel
    return parts


class Workspace:
    """Named vectors that are allocated once and reused.

    On the CPU, allocating a large vector at each step costs more than a pass over it.
    """

    def __init__(self) -> None:
        self.vectors: dict[tuple[Hashable, ...], Tensor] = {}
        self._layouts: dict[tuple[Hashable, ...], FlatLayout] = {}

    def vector(self, layout: FlatLayout, *name: Hashable) -> Tensor:
        """Return the vector [layout.numel] called ``name``, with arbitrary content.

        A vector of another size, dtype or device is replaced.
        """
        if self._layouts.get(name) is layout:
            return self.vectors[name]
        wanted = (layout.numel, layout.dtype, layout.device)
        vector = self.vectors.get(name)
        if vector is None or (vector.numel(), vector.dtype, vector.device) != wanted:
            vector = self.vectors[name] = layout.new_vector()
        self._layouts[name] = layout
        return vector
