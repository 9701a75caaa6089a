"""Compare a derivative with finite differences at two widths."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

_NOISE = 1e2
"""Rounding error of a computed value in units of eps."""


class Verdict(Enum):
    """Outcome of a comparison."""

    AGREES = "agrees"
    WRONG = "wrong"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Precision:
    """Difference widths and tolerances for a floating-point type.

    Attributes:
        eps: machine epsilon of the type.
        loss_width: smallest width for differences of a loss, relative to the size of the
            parameters; None if the type is too coarse.
        gradient_width: width for differences of a gradient, in the same unit; None if the type is
            too coarse. It is small so that hardly any unit of a network crosses a kink: if many do,
            differences at two widths can agree on a value that is not the derivative.
        rtol: largest relative error between a derivative and the differences.
        order_rtol: largest relative error between the two orders of differentiation.
        repeat_rtol: largest relative difference of two losses at the same parameters.
    """

    eps: float
    loss_width: float | None
    gradient_width: float | None
    rtol: float
    order_rtol: float
    repeat_rtol: float

    @staticmethod
    def of(dtype: torch.dtype) -> "Precision":
        """Return the widths and tolerances for ``dtype``."""
        eps = torch.finfo(dtype).eps
        if dtype == torch.float64:
            return Precision(eps, 1e-7, 1e-8, 1e-3, 1e-6, 1e-9)
        if dtype == torch.float32:
            return Precision(eps, 1e-3, None, 5e-2, 5e-2, 1e-4)
        return Precision(eps, None, None, 0.3, 0.3, 0.1)

    def noise(self, size: float, width: float) -> float:
        """Return the rounding error of a difference quotient of values of ``size``."""
        return _NOISE * self.eps * size / width

    def width_for(self, value: float, slope: float) -> float:
        """Return the width for differences of a loss, wider if rounding would hide its slope."""
        assert self.loss_width is not None
        widest = 1e2 * self.loss_width
        if 10 * self.noise(abs(value), widest) >= self.rtol * slope:
            return widest
        return max(self.loss_width, 10 * self.noise(abs(value), 1.0) / (self.rtol * slope))


@dataclass(frozen=True)
class Comparison:
    """Result of comparing one derivative with differences.

    Attributes:
        verdict: the outcome.
        error: the relative error, at most 2 if finite.
        worst: index of the tensor with the largest error.
    """

    verdict: Verdict
    error: float
    worst: int = 0


def compare(
    expected: Sequence[Tensor],
    base: Sequence[Tensor],
    at: Callable[[float], Sequence[Tensor]],
    width: float,
    *,
    rtol: float,
    noise: float,
    scale: float | None = None,
) -> Comparison:
    """Compare a derivative with differences, tensor by tensor.

    Differences at half the width are computed only if those at ``width`` do not agree with the
    derivative. The derivative is wrong only if the differences at both widths, and the forward and
    backward differences, are much closer to each other than to it. Otherwise the cause may be a
    kink or rounding, and the result is undecided.

    Args:
        expected: the derivative.
        base: the differentiated function at the base point.
        at: returns the function at a multiple of the direction.
        width: the first width.
        rtol: largest relative error that passes.
        noise: absolute rounding error of a quotient at ``width``.
        scale: lower bound of the size that errors are relative to; None for the size of each
            tensor.
    """
    first, _ = _quotients(base, at, width)
    errors, scales = _distances(expected, first, scale)
    if not all(map(math.isfinite, errors)):
        return Comparison(Verdict.UNDECIDED, math.inf)
    if not _off(errors, scales, rtol, noise):
        return Comparison(Verdict.AGREES, max(map(_ratio, errors, scales)))
    second, bends = _quotients(base, at, width / 2)
    errors, scales = _distances(expected, second, scale)
    off = _off(errors, scales, rtol, 2 * noise)
    if not off:
        return Comparison(Verdict.AGREES, max(map(_ratio, errors, scales)))
    spreads, _ = _distances(first, second, scale)
    certain = [i for i in off if errors[i] > 10 * max(spreads[i], float(bends[i].norm()))]
    worst = max(certain or off, key=lambda i: _ratio(errors[i], scales[i]))
    verdict = Verdict.WRONG if certain else Verdict.UNDECIDED
    return Comparison(verdict, _ratio(errors[worst], scales[worst]), worst)


def _quotients(
    base: Sequence[Tensor], at: Callable[[float], Sequence[Tensor]], width: float
) -> tuple[list[Tensor], list[Tensor]]:
    """Return central difference quotients, and forward minus backward quotients."""
    points = list(zip(at(width), base, at(-width), strict=True))
    central = [(ahead - behind) / (2 * width) for ahead, _, behind in points]
    return central, [((a - here) - (here - b)) / width for a, here, b in points]


def _off(errors: Sequence[float], scales: Sequence[float], rtol: float, noise: float) -> list[int]:
    pairs = zip(errors, scales, strict=True)
    return [i for i, (error, size) in enumerate(pairs) if not error <= rtol * size + noise]


def _distances(
    ones: Sequence[Tensor], others: Sequence[Tensor], scale: float | None
) -> tuple[list[float], list[float]]:
    """Return the norms of the differences of tensors, and the scales of relative errors."""
    distances = [float((a - b).norm()) for a, b in zip(ones, others, strict=True)]
    sizes = [max(float(a.norm()), float(b.norm())) for a, b in zip(ones, others, strict=True)]
    if scale is not None:
        return distances, [max(scale, size) for size in sizes]
    # A tensor far below this share has a derivative that is zero up to rounding.
    share = 1e-2 * math.hypot(*sizes)
    return distances, [size + share for size in sizes]


def _ratio(error: float, scale: float) -> float:
    return 0.0 if error == 0 else error / scale


def random_direction(tensors: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Return a normal direction scaled to each tensor's size; zero tensors use the average."""
    sizes = [float(t.detach().norm()) / max(1, t.numel()) ** 0.5 for t in tensors]
    usual = sum(sizes) / max(1, sum(size > 0 for size in sizes)) or 1.0
    return [
        torch.randn(t.shape, dtype=t.dtype, generator=generator, device="cpu")
        .to(t.device)
        .mul_(size or usual)
        for t, size in zip(tensors, sizes, strict=True)
    ]
