"""Mirror maps by name."""

import math

import torch
from torch import Tensor

from compopt._checks import check_choice
from compopt.optim.mirrors.chart import Chart, Mirror
from compopt.optim.mirrors.coupled import PositiveDefinite, Simplex
from compopt.optim.mirrors.separable import Box, NonNegative

NAMES = ("euclidean", "nonnegative", "simplex", "box", "positive-definite")


START = {
    "nonnegative": "Start from small positive entries: `param.data.clamp_(min=0.01)`.",
    "simplex": "Start from positive entries that sum to 1 along the last dimension: "
    "`param.data.fill_(1 / param.shape[-1])`.",
    "box": "Start between the bounds: `param.data.fill_((low + high) / 2)`.",
    "positive-definite": "Start from a symmetric matrix with positive eigenvalues: "
    "`param.data.copy_(torch.eye(param.shape[-1]))`.",
}
"""Advice for a feasible start, by mirror map."""


def check_mirror(mirror: object) -> None:
    """Raise unless ``mirror`` names a mirror map."""
    if isinstance(mirror, str):
        check_choice("mirror", mirror, NAMES)
        if mirror == "box":
            raise ValueError('`mirror` must give the bounds of a box: ("box", low, high).')
        return
    if not isinstance(mirror, tuple | list) or len(mirror) != 3 or mirror[0] != "box":
        raise TypeError(
            f'`mirror` must be one of {", ".join(map(repr, NAMES))}, a box as ("box", low, high), '
            f"or a pair (min, max) of these, got {mirror!r}."
        )
    bounds = mirror[1:]
    if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in bounds):
        raise TypeError(f"`mirror` must have numbers as the bounds of a box, got {mirror!r}.")
    if not (all(map(math.isfinite, bounds)) and bounds[0] < bounds[1]):
        raise ValueError(f"`mirror` must have finite bounds low < high, got {mirror!r}.")


def check_feasible(mirror: Mirror, param: Tensor) -> None:
    """Raise unless ``param`` can be moved by ``mirror`` and lies strictly inside its set."""
    if mirror == "euclidean":
        return
    value = param.detach()
    if value.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"`mirror` {mirror!r} needs parameters in float32 or float64, got {value.dtype}."
        )
    if mirror == "positive-definite" and (value.dim() < 2 or value.shape[-1] != value.shape[-2]):
        raise ValueError(
            f"`mirror` {mirror!r} needs square matrices, got a parameter of shape "
            f"{tuple(value.shape)}."
        )
    if mirror == "simplex" and value.dim() < 1:
        raise ValueError(f"`mirror` {mirror!r} needs vectors, got a parameter without dimensions.")
    if value.is_meta or value.numel() == 0:
        return
    if not _is_inside(mirror, value):
        raise ValueError(
            f"`mirror` {mirror!r} needs parameters strictly inside its set, because a step cannot "
            f"leave the boundary, got one of shape {tuple(value.shape)} with entries from "
            f"{value.min():.4g} to {value.max():.4g}. "
            f"{START[mirror if isinstance(mirror, str) else 'box']}"
        )


def _is_inside(mirror: Mirror, value: Tensor) -> bool:
    if mirror == "nonnegative":
        return bool(((value > 0) & torch.isfinite(value)).all())
    if mirror == "simplex":
        gap = (value.sum(-1) - 1).abs().max()
        return bool((value > 0).all()) and bool(gap <= 1e3 * torch.finfo(value.dtype).eps)
    if mirror == "positive-definite":
        gap = (value - value.mT).abs().max()
        is_symmetric = gap <= 1e3 * torch.finfo(value.dtype).eps * value.abs().max()
        return bool(is_symmetric) and not bool(torch.linalg.cholesky_ex(value).info.any())
    low, high = _bounds(mirror)
    return bool(((value > low) & (value < high)).all())


def make_chart(mirror: Mirror, point: Tensor) -> Chart | None:
    """Return the chart at ``point``; None if Euclidean, where coordinates are local already."""
    if mirror == "euclidean":
        return None
    if mirror == "nonnegative":
        return NonNegative(point)
    if mirror == "simplex":
        return Simplex(point)
    if mirror == "positive-definite":
        return PositiveDefinite(point)
    return Box(point, *_bounds(mirror))


def _bounds(mirror: Mirror) -> tuple[float, float]:
    assert not isinstance(mirror, str)
    return mirror[1], mirror[2]
