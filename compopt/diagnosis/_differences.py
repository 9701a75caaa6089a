"""A derivative beside differences at two widths."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

_NOISE = 1e2
"""Rounding error of a computed value in units of eps."""


class Verdict(Enum):
    """What a comparison says."""

    AGREES = "agrees"
    WRONG = "wrong"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Precision:
    """Widths of differences and tolerances that suit a floating-point type.

    Attributes:
        eps: its rounding error.
        loss_width: by how much of their size parameters move at least for differences of a loss;
            None if the type is too coarse.
        gradient_width: the same for differences of a gradient. It is so small that hardly any unit
            of a network passes a kink meanwhile: of kinks in large numbers the differences at two
            widths would agree on something that is no derivative.
        rtol: what a derivative and the differences may differ by.
        order_rtol: what the two orders of differentiation may.
        repeat_rtol: what two losses at the same parameters may.
    """

    eps: float
    loss_width: float | None
    gradient_width: float | None
    rtol: float
    order_rtol: float
    repeat_rtol: float

    @staticmethod
    def of(dtype: torch.dtype) -> "Precision":
        """Return those for ``dtype``."""
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
        """Return the width for differences of a loss: wider if rounding would drown its slope."""
        assert self.loss_width is not None
        widest = 1e2 * self.loss_width
        if 10 * self.noise(abs(value), widest) >= self.rtol * slope:
            return widest
        return max(self.loss_width, 10 * self.noise(abs(value), 1.0) / (self.rtol * slope))


@dataclass(frozen=True)
class Comparison:
    """One derivative beside differences.

    Attributes:
        verdict: what follows.
        error: the relative error, at most 2.
        worst: the number of the tensor in which it is largest.
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

    Differences at a second width are formed only where those at the first do not agree. They are a
    judge of the derivative only if they, and those ahead and behind, are nearer to each other than
    to it. Otherwise there is a kink, or rounding.

    Args:
        expected: the derivative.
        base: what is differentiated.
        at: returns it at a multiple of the direction.
        width: the first.
        rtol: relative error that is none.
        noise: absolute rounding error of a quotient at ``width``.
        scale: what errors are relative to; None for the size of each tensor.
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
    """Return central difference quotients, and by how much those ahead and behind differ."""
    points = list(zip(at(width), base, at(-width), strict=True))
    central = [(ahead - behind) / (2 * width) for ahead, _, behind in points]
    return central, [((a - here) - (here - b)) / width for a, here, b in points]


def _off(errors: Sequence[float], scales: Sequence[float], rtol: float, noise: float) -> list[int]:
    pairs = zip(errors, scales, strict=True)
    return [i for i, (error, size) in enumerate(pairs) if not error <= rtol * size + noise]


def _distances(
    ones: Sequence[Tensor], others: Sequence[Tensor], scale: float | None
) -> tuple[list[float], list[float]]:
    """Return the norms of the differences of tensors, and what they are relative to."""
    distances = [float((a - b).norm()) for a, b in zip(ones, others, strict=True)]
    sizes = [max(float(a.norm()), float(b.norm())) for a, b in zip(ones, others, strict=True)]
    if scale is not None:
        return distances, [max(scale, size) for size in sizes]
    # A tensor of next to no share is one whose derivative is zero but for rounding.
    share = 1e-2 * math.hypot(*sizes)
    return distances, [size + share for size in sizes]


def _ratio(error: float, scale: float) -> float:
    return 0.0 if error == 0 else error / scale


def random_direction(tensors: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Return normal entries of the size of each tensor's own, or of all where it is zero."""
    sizes = [float(t.detach().norm()) / max(1, t.numel()) ** 0.5 for t in tensors]
    usual = sum(sizes) / max(1, sum(size > 0 for size in sizes)) or 1.0
    return [
        torch.randn(t.shape, dtype=t.dtype, generator=generator, device="cpu")
        .to(t.device)
        .mul_(size or usual)
        for t, size in zip(tensors, sizes, strict=True)
    ]
