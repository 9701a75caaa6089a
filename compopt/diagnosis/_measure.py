"""Measure the derivatives of a game against finite differences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from compopt._flat import FlatLayout
from compopt._typing import OPPONENT, PLAYERS, Player
from compopt.derivatives import Derivatives
from compopt.diagnosis._differences import (
    Comparison,
    Precision,
    Verdict,
    compare,
    random_direction,
)
from compopt.diagnosis._replay import Replay, UnrepeatableError
from compopt.diagnosis._terms import differentiating, gradients, mixed_losses, terms_of
from compopt.game import Game

ATTEMPTS = 4
"""How many directions are tried before a derivative is left undecided."""

SHIFT = 1e-3
"""By how much of their size parameters are moved away for all directions but the first."""


class Derivative(NamedTuple):
    """Key of one measured derivative.

    Attributes:
        kind: ``"gradient"``, ``"product"`` (mixed), or ``"order"`` (of differentiation).
        term: name of the game's term.
        player: the player in whose space it lies.
    """

    kind: str
    term: str
    player: Player


_Values: TypeAlias = Mapping[Derivative, Sequence[Tensor]]


@dataclass(frozen=True)
class Measurement:
    """Results of all comparisons.

    Attributes:
        agreeing: relative error of each derivative that agrees with differences.
        wrong: comparison of each wrong derivative.
        undecided: all other derivatives.
    """

    agreeing: dict[Derivative, float] = field(default_factory=dict)
    wrong: dict[Derivative, Comparison] = field(default_factory=dict)
    undecided: list[Derivative] = field(default_factory=list)


def measure(replay: Replay, dtype: torch.dtype) -> Measurement:
    """Compare gradients, mixed products and their two orders along random directions.

    A derivative is wrong if it fails along at least two directions, and along more than it passes.

    Args:
        replay: the game to evaluate.
        dtype: the dtype of the computation.

    Raises:
        UnrepeatableError: if the loss changes between calls at the same parameters.
    """
    precision = Precision.of(dtype)
    votes: dict[Derivative, list[Comparison]] = {}
    for attempt in range(ATTEMPTS):
        for derivative, comparison in _Attempt(replay, precision, attempt).comparisons():
            votes.setdefault(derivative, []).append(comparison)
        if all(_is_settled(comparisons) for comparisons in votes.values()):
            break
    result = Measurement()
    for derivative, comparisons in votes.items():
        wrong = [c for c in comparisons if c.verdict is Verdict.WRONG]
        agreeing = [c.error for c in comparisons if c.verdict is Verdict.AGREES]
        if len(wrong) > max(1, len(agreeing)):
            result.wrong[derivative] = wrong[0]
        elif agreeing:
            result.agreeing[derivative] = min(agreeing)
        else:
            result.undecided.append(derivative)
    return result


def _is_settled(comparisons: Sequence[Comparison]) -> bool:
    verdicts = [comparison.verdict for comparison in comparisons]
    wrong, agreeing = verdicts.count(Verdict.WRONG), verdicts.count(Verdict.AGREES)
    return abs(wrong - agreeing) >= 2 or (agreeing == 1 and not wrong)


class _Attempt:
    """Comparisons along one random direction for each player."""

    def __init__(self, replay: Replay, precision: Precision, attempt: int) -> None:
        self._replay, self._precision = replay, precision
        generator = torch.Generator("cpu").manual_seed(attempt)
        self._directions = _directions(replay, generator)
        # Move off the initial point: zero biases can put units on kinks, which have no derivative.
        replay.start_from(_directions(replay, generator, SHIFT) if attempt else None)
        self._narrowing = 0.1 ** (attempt % 2)
        # Caches: one evaluation gives the values or gradients of all terms.
        self._values: dict[tuple[Player, float, str], dict[str, float]] = {}
        self._gradients: dict[tuple[Player, float], _Values] = {}

    def comparisons(self) -> Iterator[tuple[Derivative, Comparison]]:
        """Yield each derivative and its comparison with differences."""
        values, derivatives, orders = self._replay.evaluate(self._derivatives)
        self._check_repeats(values)
        size = max(_norm(grads) for found, grads in derivatives.items() if found.kind == "gradient")
        yield from orders.items()
        for derivative, tensors in derivatives.items():
            if derivative.kind == "gradient":
                comparison = self._of_gradient(derivative, tensors, values[derivative.term])
            else:
                base = derivatives[derivative._replace(kind="gradient")]
                comparison = self._of_product(derivative, tensors, base, size)
            if comparison is not None:
                yield derivative, comparison

    def _check_repeats(self, values: Mapping[str, float]) -> None:
        for term, again in self._replay.evaluate(_values_of).items():
            size = max(abs(again), abs(values[term]))
            if abs(again - values[term]) > self._precision.repeat_rtol * size:
                raise UnrepeatableError(
                    f"`loss_fn` gave {values[term]:.6g} and then {again:.6g} for `{term}` at the "
                    "same parameters; use the same batch in each call"
                )

    def _derivatives(
        self, game: Game
    ) -> tuple[dict[str, float], dict[Derivative, list[Tensor]], dict[Derivative, Comparison]]:
        """Return the terms, their derivatives, and how the two orders compare."""
        self._replay.check_twins_only(game)
        params = self._replay.params
        layouts = {player: FlatLayout.of(params[player]) for player in PLAYERS}
        flat = {p: layouts[p].flatten(self._directions[p]) for p in PLAYERS}
        found: dict[Derivative, list[Tensor]] = {}
        orders: dict[Derivative, Comparison] = {}
        for term, loss in terms_of(game).items():
            players, is_mixed = differentiating(term), term in mixed_losses(game)
            grads = gradients(term, loss, params, players, create_graph=is_mixed)
            for player in players:
                found[Derivative("gradient", term, player)] = _dense(params[player], grads[player])
            if not is_mixed:
                continue
            mixed = Derivatives.of_loss(grads, params)
            products = {p: mixed.mixed_product(p, flat[OPPONENT[p]]) for p in PLAYERS}
            for player, product in products.items():
                found[Derivative("product", term, player)] = [
                    view.clone() for view in layouts[player].views(product)
                ]
            # For a random vector instead of the product, both inner products would nearly vanish.
            back = mixed.mixed_product("max", products["min"])
            forth = products["min"]
            size = max(float(_norm(found[Derivative("gradient", term, p)])) for p in PLAYERS)
            orders[Derivative("order", term, "min")] = self._of_orders(
                float(back.dot(flat["max"])), float(forth.dot(forth)), size
            )
        return _values_of(game), found, orders

    def _of_orders(self, one: float, other: float, size: float) -> Comparison:
        scale = max(abs(one), abs(other)) + (1e-6 * size) ** 2
        error = 0.0 if one == other else abs(one - other) / scale
        if not math.isfinite(error):
            return Comparison(Verdict.UNDECIDED, error)
        agrees = error <= self._precision.order_rtol
        return Comparison(Verdict.AGREES if agrees else Verdict.WRONG, error)

    def _of_gradient(
        self, derivative: Derivative, grads: Sequence[Tensor], value: float
    ) -> Comparison | None:
        precision = self._precision
        if precision.loss_width is None:
            return None
        _, term, player = derivative
        direction: Sequence[Tensor] = self._directions[player]
        name = "random"
        if precision.gradient_width is None:
            # Along a random direction, rounding would hide the change of the loss.
            pairs = zip(grads, direction, strict=True)
            direction = [
                functional.normalize(g.flatten(), dim=0).view_as(g) * d.norm() for g, d in pairs
            ]
            name = term
        products = [
            (float((grad * step).sum()), float(grad.norm() * step.norm()), grad.numel())
            for grad, step in zip(grads, direction, strict=True)
        ]
        expected = _number(sum(product for product, *_ in products))
        # The typical size of the derivative along a random direction.
        scale = math.hypot(*(size / max(1, numel) ** 0.5 for _, size, numel in products))

        def at(width: float) -> list[Tensor]:
            if (player, width, name) not in self._values:
                found = self._replay.evaluate(_values_of, player, direction, width)
                self._values[player, width, name] = found
            return [_number(self._values[player, width, name][term])]

        width = precision.width_for(value, scale)
        noise = precision.noise(abs(value), width)
        return compare(
            [expected],
            [_number(value)],
            at,
            width,
            rtol=precision.rtol,
            noise=noise,
            scale=scale,
        )

    def _of_product(
        self,
        derivative: Derivative,
        products: Sequence[Tensor],
        base: Sequence[Tensor],
        size: float,
    ) -> Comparison | None:
        precision = self._precision
        if precision.gradient_width is None:
            return None
        width = precision.gradient_width * self._narrowing

        def at(width: float) -> Sequence[Tensor]:
            return self._gradients_at(derivative.player, width)[derivative]

        noise = precision.noise(size, width)
        return compare(products, base, at, width, rtol=precision.rtol, noise=noise)

    def _gradients_at(self, player: Player, width: float) -> _Values:
        """Return the gradients of ``player`` with its opponent moved, keyed as mixed products.

        One evaluation serves all terms.
        """
        mover, params = OPPONENT[player], self._replay.params

        def work(game: Game) -> dict[Derivative, list[Tensor]]:
            return {
                Derivative("product", term, player): _dense(
                    params[player], gradients(term, loss, params, (player,))[player]
                )
                for term, loss in terms_of(game).items()
                if term in mixed_losses(game)
            }

        if (player, width) not in self._gradients:
            found = self._replay.evaluate(work, mover, self._directions[mover], width)
            self._gradients[player, width] = found
        return self._gradients[player, width]


def _directions(
    replay: Replay, generator: torch.Generator, size: float = 1.0
) -> dict[Player, list[Tensor]]:
    return {
        player: [step.mul_(size) for step in random_direction(replay.params[player], generator)]
        for player in PLAYERS
    }


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")


def _values_of(game: Game) -> dict[str, float]:
    return {name: float(term.detach()) for name, term in terms_of(game).items()}


def _dense(params: Sequence[Tensor], grads: Sequence[Tensor | None]) -> list[Tensor]:
    """Return detached copies of gradients, with zeros for None."""
    pairs = zip(params, grads, strict=True)
    return [torch.zeros_like(p) if g is None else g.detach().clone() for p, g in pairs]


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.hypot(*(float(tensor.norm()) for tensor in tensors))
