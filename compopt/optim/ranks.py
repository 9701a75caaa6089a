"""An optimizer's part in keeping the processes that share its steps together."""

from contextlib import AbstractContextManager
from typing import Any

from compopt.distributed import Placement, placement_of
from compopt.distributed.meeting import Act, Terms
from compopt.game import AnyGame
from compopt.optim.players import ProcessGroup, TwoPlayerOptimizer
from compopt.optim.report import StepError
from compopt.optim.terms import plain, terms_of
from compopt.optim.trouble import check_shardable


class SharesSteps(TwoPlayerOptimizer):
    """A two-player optimizer whose steps processes may share.

    All of them must make the same calls on the same terms. Whether they do is looked at when a call
    begins to need the others; parameters and state are compared the first time, and the first time
    after a state dict was loaded.
    """

    _pending: object | None = None

    def _place(self, process_group: ProcessGroup) -> Placement:
        placement = placement_of(process_group)
        if placement.is_sharded:
            check_shardable(getattr(self, "solver", None))
        return placement

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._num_calls = 0
        self._has_met = False

    def _together(self, closure: object) -> AbstractContextManager[None]:
        """Return a context for a call with this ``closure``, which processes make together."""
        # Counted before the loss is computed: a rank that fails there and goes on is found out. A
        # call that only creates the state is made by one alone, to save it.
        self._num_calls += closure is not None or self._pending is not None
        return self._placement.together(StepError)

    def _further_settings(self) -> dict[str, str]:
        """Return, as texts by name, what else has to be alike on all processes."""
        return {}

    def _meet(
        self,
        act: Act,
        game: AnyGame[Any] | None = None,
        scale: float = 1.0,
        player: Any | None = None,
    ) -> None:
        """Begin what processes do together; raise on all of them unless they can.

        Args:
            act: which call this is.
            game: of this process, None if it was differentiated before.
            scale: of the loss.
            player: who moves alone, None if both do.
        """

        def terms() -> Terms:
            settings = {f"`{name}`": plain(getattr(self, name)) for name in self._options}
            settings["`player`"] = plain(player)
            if game is not None:
                losses = [str(objective.loss.dtype) for objective in game.objectives()]
                settings |= {**self._placement.settings(), "the losses": ", ".join(losses)}
                settings["scale of the loss"] = plain(scale)
            settings |= self._further_settings()
            state = None if self._has_met else self.state
            keys = ("player", *self.defaults)
            return terms_of(self.param_groups, keys, settings, state, self._state_keys)

        # A device graph cannot have a message that is read, and holds what is compared beforehand.
        is_silent = self.capturable and self._has_met
        device = self.param_groups[0]["params"][0].device
        self._placement.meet(act, self._num_calls, None if is_silent else terms, device)
        self._has_met = True
