"""What optimizers with a two-phase step say to a gradient scaler."""

from typing import ClassVar

NO_SCALER = (
    "`scaler` is for zero-sum games, got a loss for each player: their products would carry the "
    "scale of the losses. Use `torch.autocast(..., dtype=torch.bfloat16)`, which needs no scaler, "
    "or one zero-sum loss."
)


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
