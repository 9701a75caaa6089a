"""Copies between lists of tensors and flat vectors in plain torch.

Views of a vector are cached on it: work vectors are reused in each step, and creating views takes
longer than operating on short vectors.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..cg.reference import partial_dot

SHORT = 2**16
"""Number of entries up to which a vector is processed as a whole, in the fewest operations.

Longer vectors are processed tensor by tensor, so that each stays in the processor's caches.
"""


def pieces(vector: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """Return the pieces of ``vector`` [n] as views of these shapes, which are cached on it."""
    kept = getattr(vector, "_pieces", None)
    if kept is not None and kept[0] == shapes:
        views: tuple[Tensor, ...] = kept[1]
        return views
    # Use views of an alias: views of `vector` itself would form a reference cycle with it.
    split = torch.split(vector.detach(), [shape.numel() for shape in shapes])
    views = tuple(piece.view(shape) for piece, shape in zip(split, shapes, strict=True))
    vector._pieces = shapes, views  # type: ignore[attr-defined]
    return views


def gather(
    tensors: Sequence[Tensor | None],
    shapes: Sequence[torch.Size],
    out: Tensor,
    scale: Tensor | None = None,
    base: Tensor | None = None,
) -> Tensor | None:
    """Write ``tensors`` into a flat vector: ``out = base + scale * tensors``.

    Args:
        tensors: of any strides and floating-point dtype; a missing one counts as zeros. Elements
            are taken in logical (row-major) order.
        shapes: shape of each tensor, including missing ones.
        out: [n] vector to write to.
        scale: [n] factors for the tensors, or None for 1.
        base: [n] summand, or None for 0.

    Returns:
        Partial sums [k >= 1] of ``base . out``, or None without ``base``.
    """
    views = pieces(out, shapes)
    # A plain copy takes one pass in either case.
    if out.numel() <= SHORT or (scale is None and base is None):
        present = [tensor for tensor in tensors if tensor is not None]
        if torch.is_grad_enabled():
            present = [tensor.detach() for tensor in present]
        if len(present) < len(views):
            pairs = [*zip(views, tensors, strict=True)]
            torch._foreach_zero_([view for view, tensor in pairs if tensor is None])
            views = tuple(view for view, tensor in pairs if tensor is not None)
        if present:
            torch._foreach_copy_(views, present)
        if base is None:
            if scale is not None:
                out.mul_(scale)
        elif scale is None:
            torch.add(base, out, out=out)
        else:
            torch.addcmul(base, out, scale, out=out)
    else:
        absent: Sequence[None] = [None] * len(views)
        factors = absent if scale is None else pieces(scale, shapes)
        terms = absent if base is None else pieces(base, shapes)
        for tensor, view, factor, term in zip(tensors, views, factors, terms, strict=True):
            _gather_one(tensor, view, factor, term)
    return None if base is None else partial_dot(base, out)


def _gather_one(
    tensor: Tensor | None, out: Tensor, scale: Tensor | None, base: Tensor | None
) -> None:
    if tensor is None:
        out.zero_() if base is None else out.copy_(base)
        return
    tensor = tensor.detach()
    # One pass per tensor is the fastest of the variants in `benchmarks.kernels` on the CPU.
    if base is None:
        assert scale is not None
        torch.mul(tensor, scale, out=out)
    elif scale is None:
        torch.add(base, tensor, out=out)
    else:
        torch.addcmul(base, tensor, scale, out=out)


def scatter(
    vector: Tensor,
    shapes: Sequence[torch.Size],
    dtypes: Sequence[torch.dtype],
    scale: Tensor | None = None,
    out: Tensor | None = None,
) -> Sequence[Tensor]:
    """Return the pieces of ``scale * vector`` as tensors.

    Args:
        vector: [n].
        shapes: shapes of the tensors, in the order of their pieces.
        dtypes: dtypes of the tensors.
        scale: [n] factors for the vector, or None for 1.
        out: [n] scratch memory for the result, with the vector's dtype, or None.

    Returns:
        Contiguous tensors. They may be views of ``out``, or without ``scale`` of ``vector``.
    """
    scaled = vector if scale is None else torch.mul(vector, scale, out=out)
    views = pieces(scaled, shapes)
    dtype = scaled.dtype
    if dtypes.count(dtype) == len(dtypes):
        return views
    return [view.to(dtype) for view, dtype in zip(views, dtypes, strict=True)]
