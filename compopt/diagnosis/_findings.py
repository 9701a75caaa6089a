"""What a rehearsal of the derivatives found."""

from collections.abc import Mapping
from dataclasses import dataclass

from compopt._typing import PLAYERS, Player


class PreflightError(RuntimeError):
    """A derivative of a competitive step is missing or wrong; the text names place and remedy."""


@dataclass(frozen=True)
class PreflightReport:
    """What one rehearsal of the derivatives found.

    Attributes:
        loss: its value; in a game with a loss for each player, that of the min player's.
        max_loss: the value of the max player's, None in a zero-sum game.
        without_gradient: names of the parameters on which neither the loss nor a penalty depends.
        without_mixed: names of the parameters whose entries of a mixed product are all zero, those
            without a gradient included. A step moves them by their own gradient alone.
        interacts: whether any mixed derivative is nonzero. If none is, a competitive step is plain
            gradient descent-ascent.
        seconds_gradient: for the gradients of both players with their graph.
        seconds_product: for the mixed product in each player's space.
        errors: largest relative differences of ``"gradient"`` (from differences of the loss),
            ``"product"`` (from differences of the gradient), and ``"order"`` (of the two orders of
            differentiation). What was not measured is missing.
        unmeasured: what was not measured and why, None if all was.

    The seconds are those of one cold run; a training step is faster.
    """

    loss: float
    max_loss: float | None
    without_gradient: tuple[str, ...]
    without_mixed: tuple[str, ...]
    interacts: bool
    seconds_gradient: float
    seconds_product: Mapping[Player, float]
    errors: Mapping[str, float]
    unmeasured: str | None

    def __str__(self) -> str:
        verdict = (
            "interact" if self.interacts else "do not interact: this is gradient descent-ascent"
        )
        products = " and ".join(
            f"{1e3 * self.seconds_product[player]:.1f} ms ({player})" for player in PLAYERS
        )
        loss = (
            f"{self.loss:.4g}" if self.max_loss is None else f"{self.loss:.4g}, {self.max_loss:.4g}"
        )
        errors = ", ".join(f"{kind} {error:.0e}" for kind, error in self.errors.items())
        unmeasured = f"\n  not measured: {self.unmeasured}" if self.unmeasured else ""
        return (
            f"preflight passed: loss {loss}, the players {verdict}\n"
            f"  gradient {1e3 * self.seconds_gradient:.1f} ms, mixed products {products}\n"
            f"  no gradient: {', '.join(self.without_gradient) or 'none'}\n"
            f"  no mixed derivative: {', '.join(self.without_mixed) or 'none'}\n"
            f"  relative errors: {errors or 'none measured'}{unmeasured}"
        )
