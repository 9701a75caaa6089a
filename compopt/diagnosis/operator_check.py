"""Test that the mixed products of a loss are products with one matrix and its transpose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compopt._checks import check_count, check_non_negative
from compopt._typing import OPPONENT, PLAYERS, Player
from compopt.derivatives import Derivatives, differentiate
from compopt.diagnosis._players import PlayerLike, players_of
from compopt.diagnosis._terms import gradients, losses_of
from compopt.game import Game, LossOrClosure, Terms, as_game

_RTOL = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class OperatorReport:
    """Deviation of the mixed products from products with one matrix ``D`` and its transpose.

    Attributes:
        repeatability: relative difference of two products with the same vector; 0 if they are
            bitwise equal.
        linearity: relative difference of ``D (v + 2 w)`` and ``D v + 2 D w``.
        transpose: relative difference of ``<u, D v>`` and ``<D^T u, v>``.
        rtol: largest relative error that passes.

    Each error is the maximum over the two directions, and over both losses of a pair.
    """

    repeatability: float
    linearity: float
    transpose: float
    rtol: float

    @property
    def errors(self) -> dict[str, float]:
        """The three relative errors by name."""
        return {
            "repeatability": self.repeatability,
            "linearity": self.linearity,
            "transpose": self.transpose,
        }

    @property
    def ok(self) -> bool:
        """True if all errors are finite and within ``rtol``."""
        return not self._failed

    @property
    def _failed(self) -> list[str]:
        # `not <=` rather than `>`, which is false for NaN.
        return [name for name, error in self.errors.items() if not error <= self.rtol]

    def __str__(self) -> str:
        verdict = "ok" if self.ok else f"wrong in {', '.join(self._failed)}"
        listed = ", ".join(f"{name} {error:.1e}" for name, error in self.errors.items())
        return f"mixed products {verdict}: relative errors {listed} (rtol {self.rtol:.0e})"


def check_operator(
    loss: LossOrClosure,
    min_params: PlayerLike,
    max_params: PlayerLike,
    *,
    rtol: float | None = None,
    seed: int = 0,
) -> OperatorReport:
    """Test that the mixed products of a loss are repeatable, linear, and transposes of each other.

    The conjugate gradient method assumes all three. They fail if an operation's double backward
    draws random numbers, recomputes something that has changed, adds in varying order, or is wrong.
    A second derivative that is wrong in the same way in both directions (for example, silently
    dropped) passes this test; :func:`~compopt.preflight` detects it by finite differences.

    Args:
        loss: a scalar with its graph, a pair (min, max) of losses, a :class:`~compopt.Game`,
            :class:`~compopt.MicroBatches`, or a function that returns one of these. The graph is
            kept. Both losses of a pair are tested; a ``curvature_loss`` is tested instead of the
            loss.
        min_params: the module, modules, or parameters that minimise it. Parameters that do not
            require grad are ignored. Parameters and their ``.grad`` are not modified.
        max_params: those that maximise it.
        rtol: largest relative error that passes. None selects 1e-9 for float64, 1e-4 for float32,
            2e-2 for float16 and 1e-1 for bfloat16, by the parameters' coarsest dtype. Pass a value
            if autocast computes in a coarser dtype.
        seed: seed of the random vectors. They are drawn from a separate generator; torch's default
            random states do not change.

    Returns:
        The three relative errors; ``report.ok`` is True if all are within the tolerance.

    Raises:
        TypeError, ValueError: if an argument is invalid.

    Cost: for each loss, one backward pass with its graph and 10 mixed products. Synchronises with
    the device.

    Example:
        >>> x, y = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
        >>> check_operator((x * y).sin().sum(), [x], [y]).ok
        True
    """
    if rtol is not None:
        check_non_negative("rtol", rtol)
    check_count("seed", seed, minimum=0)
    players = players_of({"min_params": min_params, "max_params": max_params})
    params = players.params
    game = as_game(loss, Terms(), players.device, allows_pair=True, allows_curvature=True)
    generator = torch.Generator("cpu").manual_seed(seed)
    directions = [
        _direction_errors(mixed, player, generator)
        for mixed in _operators(game, params)
        for player in PLAYERS
    ]
    repeatability, linearity, transpose = (
        max(pair, key=_nan_last) for pair in zip(*directions, strict=True)
    )
    if rtol is None:
        dtypes = {param.dtype for player in PLAYERS for param in params[player]}
        rtol = max(_RTOL[dtype] for dtype in dtypes)
    return OperatorReport(repeatability, linearity, transpose, rtol)


def _operators(game: Game, params: Mapping[Player, Sequence[Tensor]]) -> list[Derivatives[Player]]:
    """Return the mixed derivatives of each loss whose mixed products a step takes."""
    if game.max_loss is None:
        return [differentiate(game, params)]
    return [
        Derivatives.of_loss(gradients(name, loss, params, create_graph=True), params)
        for name, loss in losses_of(game).items()
    ]


def _nan_last(error: float) -> float:
    return float("inf") if error != error else error


def _direction_errors(
    mixed: Derivatives[Player], player: Player, generator: torch.Generator
) -> tuple[float, float, float]:
    """Return the three relative errors of products in ``player``'s space."""
    layout = mixed.layouts[OPPONENT[player]]
    v, w = (
        torch.randn(layout.numel, dtype=layout.dtype, generator=generator, device="cpu").to(
            layout.device
        )
        for _ in range(2)
    )
    product, again, other = (mixed.mixed_product(player, vector) for vector in (v, v, w))
    combined = mixed.mixed_product(player, v + 2 * w)
    # u = D v: for a random u both inner products would nearly vanish and hide a small asymmetry.
    transposed = mixed.mixed_product(OPPONENT[player], product)
    return (
        _relative(again - product, product.norm()),
        _relative(combined - (product + 2 * other), product.norm() + 2 * other.norm()),
        _relative(transposed.dot(v) - product.dot(product), product.norm() ** 2),
    )


def _relative(difference: Tensor, scale: Tensor) -> float:
    """Return the norm of ``difference`` over ``scale``; 0 if both are zero."""
    norm = difference.norm()
    return 0.0 if norm == 0 else float(norm / scale)
