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
    terms = views if base is None else torch.split(base, list(sizes))
    for tensor, *pieces in zip(tensors, views, factors, terms, strict=True):
        _gather_one(tensor, *pieces, has_scale=scale is not None, has_base=base is not None)
    return None if base is None else partial_dot(base, out)


def _gather_one(
    tensor: Tensor | None,
    out: Tensor,
    scale: Tensor,
    base: Tensor,
    *,
    has_scale: bool,
    has_base: bool,
) -> None:
    if tensor is None:
        out.copy_(base) if has_base else out.zero_()
        return
    tensor = tensor.detach()
    out, scale, base = (piece.view(tensor.shape) for piece in (out, scale, base))
    # One pass for each tensor: of the forms in `benchmarks.kernels` the quickest on the CPU.
    if has_scale and has_base:
        torch.addcmul(base, tensor, scale, out=out)
    elif has_scale:
        torch.mul(tensor, scale, out=out)
    elif has_base:
        torch.add(base, tensor, out=out)
    else:
        out.copy_(tensor)


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
