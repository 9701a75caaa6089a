"""What each call is looked through for, and what only the first, because it takes too long."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from compopt._checks import check_hooks_of_gradients
from compopt.game import AnyGame, MeanGame
from compopt.optim.plan import without_rounding
from compopt.optim.scaling import check_unscaled


class FirstCalls:
    """Looks at calls, longest at the first of each kind: with penalties and without.

    Attributes:
        know_parts: whether micro-batches have been seen to be of one form.
    """

    def __init__(self) -> None:
        self.know_parts = False
        self._seen: set[tuple[str, bool]] = set()
        self._left_out: set[str] = set()
        # By group, its values when they were last checked, and what tells that they changed.
        self._checked: dict[int, tuple[list[Any], list[tuple[int, int]]]] = {}

    def leave_out(self, call: str) -> None:
        """Look at no ``call`` of this kind, nor at groups."""
        self._left_out.add(call)

    def check_groups(
        self, groups: Iterable[dict[str, Any]], check: Callable[[dict[str, Any]], None]
    ) -> None:
        """Raise if a value that was set in a group since the last call is not valid.

        Args:
            groups: of the optimizer.
            check: raises for one that is not valid.
        """
        for group in () if self._left_out else groups:
            values = [*group.values()]
            marks = [(id(v), v._version if isinstance(v, Tensor) else 0) for v in values]
            # Values are kept, so that no other gets the identity of one.
            if self._checked.get(id(group), ([], []))[1] != marks:
                check({**group, "lr": without_rounding(group["lr"])})
                self._checked[id(group)] = (values, marks)

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
        if call in self._left_out:
            return
        has_penalty = bool(game.penalties())
        kind = (call, has_penalty)
        check_unscaled(game.terms(), how_to_scale, reads=kind not in self._seen)
        check_hooks_of_gradients(params, has_penalty=has_penalty)
        self._seen.add(kind)
        self.know_parts = self.know_parts or isinstance(game, MeanGame)
