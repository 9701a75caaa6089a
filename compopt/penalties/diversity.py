"""Diversity of filters: penalise cosines above a threshold between the filters of a layer."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from compopt._checks import check_count, check_non_negative, check_positive
from compopt._typing import Player
from compopt.kernels import operations
from compopt.penalties._precision import widened, without_autocast
from compopt.penalties.base import Penalty, configured_first
from compopt.penalties.layers import Layers, effective_weight, filter_rows


@dataclass(frozen=True)
class GeometricThreshold:
    """A threshold that is multiplied by ``factor`` after every ``every`` epochs, up to ``limit``.

    Attributes:
        start: threshold at epoch 0.
        factor: above 1 to rise to the limit, below 1 to fall to it.
        every: number of epochs between changes.
        limit: maximum of a rising threshold, minimum of a falling one.
    """

    start: float = 0.1
    factor: float = 1.1
    every: int = 10
    limit: float = 0.5

    def __post_init__(self) -> None:
        for name in ("start", "limit"):
            check_threshold(name, getattr(self, name))
        check_positive("factor", self.factor)
        check_count("every", self.every, minimum=1)

    def __call__(self, epoch: int) -> float:
        """Return the threshold at ``epoch``."""
        value = self.start * self.factor ** (epoch // self.every)
        return min(value, self.limit) if self.factor >= 1 else max(value, self.limit)


Threshold = float | Callable[[int], float]


def check_threshold(name: str, value: object) -> None:
    """Raise unless ``value`` is a number in [0, 1]."""
    check_non_negative(name, value)
    if value > 1:  # type: ignore[operator]
        raise ValueError(f"`{name}` must be in [0, 1], as a cosine is, got {value!r}.")


def _unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of length one and inverse lengths [..., n, 1], both zero for a zero row."""
    wide = widened(rows)
    squares = wide.square().sum(dim=-1, keepdim=True)
    is_zero = squares == 0
    # Replace zeros before the root, because its derivative at zero is infinite.
    inverse = squares.masked_fill(is_zero, 1.0).rsqrt().masked_fill(is_zero, 0.0)
    return wide * inverse, inverse


def cosines(rows: Tensor) -> Tensor:
    """Return the cosines [..., n, n] between rows [..., n, d]; those of a zero row are zero.

    Computed in at least float32. Values and derivatives are finite at a zero row.
    """
    with without_autocast(rows):
        unit, _ = _unit_rows(rows)
        return unit @ unit.mT


class _SumOfSquares(torch.autograd.Function):
    """The penalty of one matrix, by kernels; plain operations if the gradient needs a graph."""

    @staticmethod
    def forward(rows: Tensor, positive: float, negative: float) -> tuple[Tensor, Tensor]:
        return operations.diversity_forward(rows, positive, negative)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        rows, *ctx.thresholds = inputs
        _, inverse_norms = output
        ctx.mark_non_differentiable(inverse_norms)
        ctx.save_for_backward(rows, inverse_norms)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        rows, inverse_norms = ctx.saved_tensors
        with without_autocast(rows):
            if torch.is_grad_enabled():
                return grad * _gradient(rows, *ctx.thresholds), None, None
            found = operations.diversity_backward(grad, rows, inverse_norms, *ctx.thresholds)
            return found, None, None


def _gradient(rows: Tensor, positive: float, negative: float) -> Tensor:
    """Return the gradient for the rows [n, d], differentiable, in plain operations."""
    unit, inverse = _unit_rows(rows)
    values = unit @ unit.T
    counts = (values > positive) | (values < -negative)
    counts = counts & ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    for_unit = 4 * (values.masked_fill(~counts, 0.0) @ unit)
    along = (for_unit * unit).sum(dim=1, keepdim=True)
    return ((for_unit - along * unit) * inverse).to(rows.dtype)


_sum_of_squares: Any = _SumOfSquares.apply


def diversity_penalty(
    rows: Tensor, *, threshold: float = 0.5, negative_threshold: float | None = None
) -> Tensor:
    """Return the sum of squared cosines between different rows that pass a threshold.

    ``sum_{i != j} c_ij^2 [c_ij > threshold or c_ij < -negative_threshold]``. The choice of pairs is
    not differentiated.

    Args:
        rows: [..., n, d], one row per filter.
        threshold: in [0, 1], for positive cosines.
        negative_threshold: in [0, 1], for negative cosines; None is ``threshold``.

    Returns:
        The sum over pairs and leading axes, each pair counted twice.

    Cost: one product of the rows with themselves, ``n^2 d``, two for the gradient. Only second
    derivatives form the matrix of all cosines.
    """
    check_threshold("threshold", threshold)
    negative = threshold if negative_threshold is None else negative_threshold
    check_threshold("negative_threshold", negative)
    if rows.dim() < 2:
        raise ValueError(f"`rows` must have shape [..., n, d], got {tuple(rows.shape)}.")
    if rows.shape[-2] < 2:
        # There are no pairs. Return a zero with a graph, so that it can be differentiated.
        return (0.0 * widened(rows)).sum()
    with without_autocast(rows):
        matrices = rows.reshape(-1, *rows.shape[-2:])
        return torch.stack([_sum_of_squares(m, threshold, negative)[0] for m in matrices]).sum()


@configured_first
@dataclass(frozen=True)
class Diversity(Penalty):
    """``coefficient * sum over layers`` of squared filter cosines above a threshold.

    Filters of a layer are compared within their group, in the weight that the layer multiplies
    with. The paper penalises both networks; published settings are a threshold of 0.5 with
    coefficient 0.1 on the critic and 0.001 on the generator, or 0.6 with 1 on the critic alone.
    They are from a repository that does not name its authors. It takes the filters of a transposed
    convolution along the first axis (here: along the output axis), uses one threshold for both
    signs, leaves out the layer at the image (``Layers(image_channels=3)``), and does not halve the
    sum; the authors' later text has a factor 1/2.

    For: the player whose network is given; for both, one term each. Sign: added to the loss for the
    min player, subtracted for the max player. Couples: no. Order: 0. Cost:
    :func:`diversity_penalty` of each layer, independent of the batch.

    Attributes:
        coefficient: factor >= 0.
        threshold: for positive cosines, in [0, 1], or a function of the epoch, such as
            :class:`GeometricThreshold`.
        negative_threshold: for negative cosines; None is ``threshold``.
        layers: the penalised layers.

    References:
        Ayinde, Nishihama and Zurada (2019). https://arxiv.org/abs/1901.10824
    """

    player: ClassVar[Player | None] = None
    order: ClassVar[int] = 0

    coefficient: float = 0.1
    threshold: Threshold = 0.5
    negative_threshold: Threshold | None = None
    layers: Layers = field(default_factory=Layers)

    def __post_init__(self) -> None:
        check_non_negative("coefficient", self.coefficient)
        for name in ("threshold", "negative_threshold"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                check_threshold(name, value)

    def __call__(self, module: nn.Module, *, epoch: int = 0) -> Tensor:
        """Return the term for a network; thresholds with a schedule use ``epoch``."""
        check_count("epoch", epoch, minimum=0)
        threshold = _at(self.threshold, epoch)
        negative = None if self.negative_threshold is None else _at(self.negative_threshold, epoch)
        terms = [
            diversity_penalty(
                filter_rows(layer, effective_weight(layer, name)),
                threshold=threshold,
                negative_threshold=negative,
            )
            for name, layer in self.layers.of(module, trainable=True).items()
        ]
        return self.coefficient * torch.stack(terms).sum()


def _at(threshold: Threshold, epoch: int) -> float:
    return threshold(epoch) if callable(threshold) else threshold
