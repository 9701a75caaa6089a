"""Lists of tensors and flat vectors in plain torch: the definition of correct."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .reference import partial_dot


def gather(
    tensors: Sequence[Tensor | None],
    sizes: Sequence[int],
    out: Tensor,
    scale: Tensor | None = None,
    base: Tensor | None = None,
) -> Tensor | None:
    """Write ``tensors`` into a flat vector: ``out = base + scale * tensors``.

    Args:
        tensors: of any strides and floating-point dtype; a missing one counts as zeros. Elements
            are taken in logical (row-major) order.
        sizes: number of elements of each, also of missing ones.
        out: [n = sum of sizes] where to write.
        scale: [n] multiplies the tensors, or None for one.
        base: [n] is added, or None for zero.

    Returns:
        Numbers [k >= 1] whose sum is ``base . out``, or None without ``base``.
    """
    views = torch.split(out, list(sizes))
    factors = views if scale is None else torch.split(scale, list(sizes))
    for tensor, view, factor in zip(tensors, views, factors, strict=True):
        if tensor is None:
            view.zero_()
        elif scale is None:
            view.view(tensor.shape).copy_(tensor.detach())
        else:
            shape = tensor.shape
            torch.mul(tensor.detach(), factor.view(shape), out=view.view(shape))
    if base is None:
        return None
    out.add_(base)
    return partial_dot(base, out)


def scatter(
    vector: Tensor,
    shapes: Sequence[torch.Size],
    dtypes: Sequence[torch.dtype],
    scale: Tensor | None = None,
    out: Tensor | None = None,
) -> list[Tensor]:
    """Return the pieces of ``scale * vector`` as tensors.

    Args:
        vector: [n].
        shapes: of the tensors, in the order of their pieces.
        dtypes: of the tensors.
        scale: [n] multiplies the vector, or None for one.
        out: [n] room that the tensors may lie in, of the vector's dtype.

    Returns:
        Contiguous tensors. They may be views of ``out``, and without ``scale`` of ``vector``.
    """
    scaled = vector if scale is None else torch.mul(vector, scale, out=out)
    pieces = torch.split(scaled, [shape.numel() for shape in shapes])
    return [
        piece.view(shape).to(dtype)
        for piece, shape, dtype in zip(pieces, shapes, dtypes, strict=True)
    ]
