"""Conclusions from measured derivatives: errors for the report, or an exception with a remedy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from compopt._remedies import WRONG_FUNCTION, WRONG_GRADIENT, WRONG_THIRD
from compopt.diagnosis._culprit import Culprit, find_culprit
from compopt.diagnosis._differences import Comparison
from compopt.diagnosis._findings import PreflightError
from compopt.diagnosis._measure import Derivative, Measurement, measure
from compopt.diagnosis._players import Players
from compopt.diagnosis._replay import Replay, UnrepeatableError, replaying
from compopt.game import Loss

_ORDINALS = ("first", "second", "third")


@dataclass(frozen=True)
class Accuracy:
    """Agreement of derivatives with finite differences.

    Attributes:
        errors: largest relative error of gradients, of mixed products, and of the two orders.
        unmeasured: what could not be measured and why; None if everything was.
    """

    errors: Mapping[str, float]
    unmeasured: str | None


def accuracy(players: Players, loss_fn: Callable[[], Loss], dtype: torch.dtype) -> Accuracy:
    """Measure the derivatives, in float64 if the loss can be computed in float64.

    Args:
        players: the two players.
        loss_fn: returns the loss.
        dtype: coarsest dtype of the loss and the parameters.

    Raises:
        PreflightError: if a derivative is wrong.
    """
    reason = ""
    if dtype != torch.float64:
        try:
            return _measured(players, loss_fn, torch.float64, widen=True)
        except PreflightError:
            raise
        except UnrepeatableError as error:
            return Accuracy({}, str(error))
        # Operations without float64 support raise errors of any type.
        except Exception as error:
            reason = f"float64 does not work ({type(error).__name__}: {_first_line(error)})"
    try:
        found = _measured(players, loss_fn, dtype, widen=False)
    except PreflightError:
        raise
    except UnrepeatableError as error:
        return Accuracy({}, str(error))
    except Exception as error:
        why = f"`loss_fn` failed when called again ({type(error).__name__}: {_first_line(error)})"
        return Accuracy({}, why)
    unmeasured = "; ".join(filter(None, (reason, found.unmeasured)))
    return Accuracy(found.errors, unmeasured or None)


def _measured(
    players: Players, loss_fn: Callable[[], Loss], dtype: torch.dtype, *, widen: bool
) -> Accuracy:
    with replaying(players, loss_fn, widen=widen) as replay:
        replay.hold_iterations()
        measurement = measure(replay, dtype)
        if measurement.wrong:
            raise PreflightError(_complaint(replay, measurement, dtype))
    errors: dict[str, float] = {}
    for derivative, error in measurement.agreeing.items():
        errors[derivative.kind] = max(error, errors.get(derivative.kind, 0.0))
    undecided = [_name(derivative, players) for derivative in measurement.undecided]
    why = f"{' and '.join(undecided)}: differences disagree among themselves" if undecided else None
    return Accuracy(errors, why)


def _complaint(replay: Replay, measurement: Measurement, dtype: torch.dtype) -> str:
    """Return a message that states the error, its size, its location, and the remedy."""
    wrong, players = measurement.wrong, replay.players
    has_wrong_gradient = any(derivative.kind == "gradient" for derivative in wrong)
    culprit = find_culprit(replay, has_wrong_gradient, dtype)
    # Wrong products make the two orders disagree; report the products instead of the orders.
    wrong = {d: c for d, c in wrong.items() if d.kind != "order"} or wrong
    sentences = [_sentence(*item, players) for item in wrong.items()]
    if culprit.module is not None:
        which = _ORDINALS[culprit.order - 1]
        label = players.label(culprit.module)
        sentences.append(f"The {which} derivative of {label} itself is wrong.")
    if culprit.functions:
        sentences.append(f"Custom functions there: {', '.join(culprit.functions)}.")
    return " ".join([*sentences, _remedy(culprit)])


def _remedy(culprit: Culprit) -> str:
    if culprit.functions:
        return WRONG_FUNCTION
    if culprit.order < len(_ORDINALS):
        return WRONG_GRADIENT
    # Imported here because `compopt.nn` is loaded only when it is first needed.
    from compopt.nn._fuse import SWAPS, reason_to_leave

    layer = culprit.module
    if layer is not None and type(layer) in SWAPS and reason_to_leave(layer) is None:
        return WRONG_THIRD.format(instead="Call `compopt.nn.fuse(network)`, which has another")
    return WRONG_THIRD.format(instead="Write the layer in elementary torch operations")


def _sentence(derivative: Derivative, comparison: Comparison, players: Players) -> str:
    percent = 100 * comparison.error
    off = f"{percent:.0f} %" if percent >= 10 else f"{percent:.1g} %"
    name = _name(derivative, players)
    if derivative.kind == "order":
        return f"{name} disagree by {off}."
    of = "loss" if derivative.kind == "gradient" else "gradient"
    worst = ""
    if derivative.kind == "product":
        worst = f", most in {players.names[derivative.player][comparison.worst]}"
    return f"{name} is wrong: it differs by {off} from finite differences of the {of}{worst}."


def _name(derivative: Derivative, players: Players) -> str:
    kind, term, player = derivative
    if kind == "order":
        return f"The two orders of differentiating `{term}` by both players"
    what = "gradient" if kind == "gradient" else "mixed product"
    return f"The {what} of `{term}` for {players.arguments[player]}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
