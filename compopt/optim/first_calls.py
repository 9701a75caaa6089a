"""What is looked at in the first calls only, because a look takes too long for every step."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from compopt._checks import check_hooks_of_gradients
from compopt.game import AnyGame
from compopt.optim.scaling import check_unscaled


class FirstCalls:
    """Looks at the first call of each kind, with penalties and without."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, bool]] = set()

    @property
    def are_over(self) -> bool:
        """Whether there has been a call."""
        return bool(self._seen)

    def leave_out(self, call: str) -> None:
        """Look at no ``call`` of this kind."""
        self._seen |= {(call, False), (call, True)}

    def look_at(
        self,
        call: str,
        game: AnyGame[Any],
        params: Iterable[Tensor],
        how_to_scale: str,
    ) -> None:
        """Raise if losses were scaled by hand, or hooks would not see gradients.

        Args:
            call: its kind.
            game: that the call was given.
            params: that it is differentiated by.
            how_to_scale: what to do instead of scaling by hand.
        """
        has_penalty = bool(game.penalties())
        if (call, has_penalty) in self._seen:
            return
        check_unscaled(game.terms(), how_to_scale)
        check_hooks_of_gradients(params, has_penalty=has_penalty)
        self._seen.add((call, has_penalty))
