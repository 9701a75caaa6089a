"""Lists of tensors and flat vectors, in the form that suits the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import lists_reference
from ._backend import triton_form, uses_triton


def gather(
    tensors: Sequence[Tensor | None],
    sizes: Sequence[int],
    out: Tensor,
    scale: Tensor | None = None,
    base: Tensor | None = None,
) -> Tensor | None:
    """As :func:`~compopt.kernels.lists_reference.gather`."""
    form = lists_reference
    if uses_triton(out):
        form = triton_form("lists_triton")
    partials: Tensor | None = form.gather(tensors, sizes, out, scale, base)
    return partials


def scatter(
    vector: Tensor,
    shapes: Sequence[torch.Size],
    dtypes: Sequence[torch.dtype],
    scale: Tensor | None = None,
    out: Tensor | None = None,
) -> list[Tensor]:
    """As :func:`~compopt.kernels.lists_reference.scatter`."""
    form = lists_reference
    if uses_triton(vector):
        form = triton_form("lists_triton")
    tensors: list[Tensor] = form.scatter(vector, shapes, dtypes, scale, out)
    return tensors
