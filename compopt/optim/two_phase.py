"""Steps in two phases: first the gradients, then the step that solves with them."""

from abc import abstractmethod
from collections.abc import Sequence
from operator import is_not
from typing import Any, ClassVar

import torch
from torch import Tensor

from compopt._remedies import NO_SCALER
from compopt.derivatives import Derivatives
from compopt.distributed.meeting import Act
from compopt.game import AnyGame, Game
from compopt.kernels import use_backend
from compopt.optim.commit import Commit
from compopt.optim.report import StepWarning
from compopt.optim.reporter import Reporter
from compopt.optim.scaling import check_ready, check_taken_back
from compopt.optim.settings import Settings
from compopt.optim.stepping import SteppingOptimizer

LOST_STEP = (
    "This call discards an earlier `backward` that no `step` has used: gradients and graphs do not "
    "accumulate. To accumulate, give the losses of all micro-batches at once, "
    "`backward(MicroBatches([loss1, loss2]))`; to drop a step, call `zero_grad()`."
)


class TwoPhaseOptimizer(SteppingOptimizer):
    """Base of the optimizers whose step may be prepared by :meth:`backward`."""

    backend: str
    _how_to_step: ClassVar[str] = (
        "Call `step(loss)`, or `optimizer.backward(loss)` before `step()`; with a `GradScaler`, "
        "`optimizer.backward(loss, scaler=scaler)` with the unscaled loss before "
        "`scaler.step(optimizer)`."
    )
    _how_to_scale: ClassVar[str] = (
        "Call `optimizer.backward(loss, scaler=scaler)` with the unscaled loss, then "
        "`scaler.step(optimizer)`. `step(loss)` takes it unscaled as well."
    )

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._pending: Derivatives[Any] | None = None
        # The scaler of the prepared step's gradients, and its scale at that time.
        self._pending_scaler: tuple[torch.amp.GradScaler, float] | None = None
        self._pending_params: dict[Any, list[Tensor]] = {}
        # Whether a scaler was given the prepared step: it skips one with gradients that overflowed.
        self._was_offered = False
        self._reporter = Reporter()

    @abstractmethod
    def _as_game(self, closure: Any, terms: Any, player: Any = None) -> AnyGame[Any]:
        """Return the game of a loss and further terms.

        Args:
            closure: the first argument of a step.
            terms: the further arguments.
            player: the player that moves alone; None if all move.
        """

    def _prepared(self, terms: tuple[Any, ...]) -> Derivatives[Any] | None:
        """Return the derivatives of the step that :meth:`backward` prepared, if any."""
        self._check_prepared()
        pending, self._pending = self._pending, None
        if any(term is not None for term in terms):
            raise ValueError("These terms go with the loss: pass them to `backward` in this form.")
        if pending is None:
            return None
        self._meet(Act.PREPARED_STEP)
        pending.grads = {
            player: self._placement.part(tensors, [param.grad for param in tensors])
            for player, tensors in pending.params.items()
        }
        return pending

    @abstractmethod
    def _result(self, losses: Sequence[Tensor]) -> Any:
        """Return the losses of a game as :meth:`step` does."""

    def _backward(
        self, closure: Any, terms: tuple[Any, ...], scaler: torch.amp.GradScaler | None = None
    ) -> Any:
        """Prepare a step; see :meth:`~compopt.CGD.backward`."""
        params = {player: self._params(player) for player in self._players}
        if scaler is not None and not scaler.is_enabled():
            scaler = None
        if scaler is not None:
            check_ready(scaler, self)
        with use_backend(self.backend), self._together(closure):
            game = self._as_game(closure, terms)
            self._check_call("backward", game)
            losses = game.detached_losses()
            game, scale = _scaled(game, scaler)
            self._meet(Act.BACKWARD, game, scale)
            if scaler is not None:
                losses = tuple(map(self._placement.mean, losses))
            interacts = Settings.of(self.param_groups).interacts
            pending = self._differentiate(game, second_order=interacts, scale=scale)
            views = {
                player: self._placement.whole(params[player], self._vectors_of(player).layout, grad)
                for player, grad in pending.grads.items()
            }
        grads = {
            param: view.to(param.dtype)
            for player in self._players
            for param, view in zip(params[player], views[player], strict=True)
        }
        if scale != 1.0:
            pending.losses = losses
        self._warn_of_lost_step()

        def prepare() -> None:
            for param, grad in grads.items():
                param.grad = grad
            self._pending = pending
            self._pending_scaler = None if scaler is None else (scaler, scale)
            self._was_offered = False
            self._pending_params = params

        commit = Commit()
        commit.add(prepare)
        commit.run()
        return self._result(pending.losses)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset ``.grad``, and drop a step that :meth:`backward` has prepared."""
        self._pending = None
        super().zero_grad(set_to_none)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """False, after a check: an enabled ``GradScaler`` asks for this before each step."""
        if self._pending is not None and self._pending_scaler is None:
            raise RuntimeError(
                "`scaler.step(optimizer)` would unscale gradients of an `optimizer.backward` that "
                f"got no scaler. {self._how_to_scale}"
            )
        self._was_offered = True
        return False

    def _check_prepared(self) -> None:
        """Raise unless the prepared step can be taken.

        Its parameters must be the same, without hooks, and scaled gradients must be unscaled.
        """
        if self._pending is None:
            return
        # A hook may have been added since `backward`.
        self._refuse_hooks()
        if self._pending_scaler is not None:
            check_taken_back(*self._pending_scaler, self)
        for player, params in self._pending_params.items():
            now = self._params(player)
            if len(now) != len(params) or any(map(is_not, now, params)):
                raise RuntimeError(
                    f"Other parameters of the {player} player require grad now, {len(now)}, than "
                    f"at `backward`, {len(params)}. Freeze, unfreeze and add parameters before "
                    "`backward`, and call it again."
                )

    def _drop_prepared(self) -> None:
        """Drop a prepared step, with a warning."""
        self._warn_of_lost_step()
        self._pending = None

    def _warn_of_lost_step(self) -> None:
        """Warn before a prepared step is dropped, unless a scaler has skipped it."""
        if self._pending is not None and not self._was_offered:
            self._reporter.warn_once("lost step", LOST_STEP, StepWarning)


def _scaled(game: AnyGame[Any], scaler: torch.amp.GradScaler | None) -> tuple[AnyGame[Any], float]:
    """Return the game scaled by ``scaler``, and the scale: 1 without a scaler."""
    if scaler is None:
        return game, 1.0
    if not isinstance(game, Game) or game.max_loss is not None:
        raise ValueError(NO_SCALER)
    return game.map(scaler.scale), scaler.get_scale()
