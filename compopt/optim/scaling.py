"""What optimizers with a two-phase step say to a gradient scaler."""

from typing import ClassVar

import torch

from compopt.game import Game


def scaled(game: Game, scaler: torch.amp.GradScaler | None) -> tuple[Game, float]:
    """Return the game that ``scaler`` makes of a game, and its scale; 1 if it is not enabled."""
    if scaler is None or not scaler.is_enabled():
        return game, 1.0
    if game.max_loss is not None:
        raise ValueError("`scaler` is for zero-sum games; got a loss for each player.")
    return game.map(scaler.scale), scaler.get_scale()


class TakesScaler:
    """Refuses a scaler's step where ``backward`` was given a loss scaled by hand."""

    _how_to_step: ClassVar[str] = (
        "Call `step(loss)`, or `optimizer.backward(loss)` before `step()`; with a `GradScaler`, "
        "`optimizer.backward(loss, scaler=scaler)` with the unscaled loss before "
        "`scaler.step(optimizer)`."
    )
    _pending: object | None
    _pending_has_scaler: bool

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """False, after a check: an enabled ``GradScaler`` asks for this before each step."""
        if self._pending is not None and not self._pending_has_scaler:
            raise RuntimeError(
                "`scaler.step(optimizer)` would unscale gradients of an `optimizer.backward` that "
                "got no scaler. A loss scaled by hand scales the mixed products as well: call "
                "`optimizer.backward(loss, scaler=scaler)` with the unscaled loss."
            )
        return False
