"""The report and the error of a preflight check."""

from collections.abc import Mapping
from dataclasses import dataclass

from compopt._typing import PLAYERS, Player


class PreflightError(RuntimeError):
    """A derivative of a competitive step is missing or wrong.

    The message names the location and the remedy.
    """


@dataclass(frozen=True)
class PreflightReport:
    """Findings of one preflight check.

    Attributes:
        loss: value of the loss; of the min player's loss if each player has its own.
        max_loss: value of the max player's loss; None in a zero-sum game.
        without_gradient: names of the parameters on which neither the loss nor a penalty depends.
        without_mixed: names of the parameters whose entries of the mixed product are all zero,
            including those without a gradient. A step moves them by their own gradient alone.
        interacts: True if any mixed derivative is nonzero. Otherwise a competitive step is plain
            gradient descent-ascent.
        seconds_gradient: time for the gradients of both players with their graph.
        seconds_product: time for the mixed product in each player's space.
        errors: largest relative error of ``"gradient"`` (against differences of the loss),
            ``"product"`` (against differences of the gradient), and ``"order"`` (one order of
            differentiation against the other). Kinds that were not measured have no entry.
        unmeasured: what was not measured and why; None if everything was.

    Times are from one cold run; a training step is faster.
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
