"""Lists of tensors and flat vectors in plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..cg.reference import partial_dot


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
    lengths = list(sizes)
    absent: Sequence[None] = [None] * len(lengths)
    views = torch.split(out, lengths)
    factors = absent if scale is None else torch.split(scale, lengths)
    terms = absent if base is None else torch.split(base, lengths)
    for tensor, view, factor, term in zip(tensors, views, factors, terms, strict=True):
        _gather_one(tensor, view, factor, term)
    return None if base is None else partial_dot(base, out)


def _gather_one(
    tensor: Tensor | None, out: Tensor, scale: Tensor | None, base: Tensor | None
) -> None:
    if tensor is None:
        out.zero_() if base is None else out.copy_(base)
        return
    tensor, shape = tensor.detach(), tensor.shape
    out = out.view(shape)
    # One pass for each tensor: of the variants in `benchmarks.kernels` the quickest on the CPU.
    if scale is None:
        if base is None:
            out.copy_(tensor)
        else:
            torch.add(base.view(shape), tensor, out=out)
    elif base is None:
        torch.mul(tensor, scale.view(shape), out=out)
    else:
        torch.addcmul(base.view(shape), tensor, scale.view(shape), out=out)


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
        out: [n] scratch memory that the tensors may lie in, of the vector's dtype.

    Returns:
        Contiguous tensors. They may be views of ``out``, and without ``scale`` of ``vector``.
    """
    scaled = vector if scale is None else torch.mul(vector, scale, out=out)
    pieces = torch.split(scaled, [shape.numel() for shape in shapes])
    return [
        piece.view(shape).to(dtype)
        for piece, shape, dtype in zip(pieces, shapes, dtypes, strict=True)
    ]
