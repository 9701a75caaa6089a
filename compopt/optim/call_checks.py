"""What each call is looked through for, and what only the first, because it takes too long."""

from collections.abc import Callable, Iterable, Sequence
from operator import is_
from typing import Any

from torch import Tensor

from compopt._checks import check_hooks_of_gradients
from compopt._graph import walk
from compopt._warn import warn
from compopt.game import AnyGame, MeanGame
from compopt.optim.plan import without_rounding
from compopt.optim.report import StepWarning
from compopt.optim.scaling import check_unscaled

STALE = (
    "A part of the loss is older than the last step, which moved the parameters that it leads to, "
    "the first of them of shape {shape}: its value and its derivatives are those of the parameters "
    "before. Compute samples anew for each step, and `detach()` what is to stay as it was."
)


class CallChecks:
    """Looks at calls, longest at the first of each kind: with penalties and without.

    Attributes:
        know_parts: whether micro-batches have been seen to be of one form.
    """

    def __init__(self) -> None:
        self.know_parts = False
        self._seen: set[tuple[str, bool]] = set()
        self._left_out: set[str] = set()
        # Versions of the parameters at the first call; None once they have changed.
        self._versions: dict[Tensor, int] | None = {}
        # By group, its values when they were last checked, and the versions of tensors among them.
        self._checked: dict[int, tuple[list[Any], list[tuple[Tensor, int]]]] = {}

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
            known, versions = self._checked.get(id(group), ([], []))
            is_known = len(known) == len(values) and all(map(is_, known, values))
            if is_known and all(tensor._version == version for tensor, version in versions):
                continue
            settings = {key: value for key, value in group.items() if key != "params"}
            check({**settings, "lr": without_rounding(group["lr"])})
            # Values are kept, so that no other gets the identity of one.
            versions = [(v, v._version) for v in values if isinstance(v, Tensor)]
            self._checked[id(group)] = (values, versions)

    def check(
        self,
        call: str,
        game: AnyGame[Any],
        params: Sequence[Tensor],
        how_to_scale: str,
        *,
        hooks: bool,
    ) -> None:
        """Raise if losses were scaled by hand, or hooks would not see gradients.

        Args:
            call: its kind.
            game: that the call was given.
            params: that it is differentiated by.
            how_to_scale: what to do instead of scaling by hand.
            hooks: whether to check hooks; not where there are none.
        """
        if call in self._left_out:
            return
        has_penalty = bool(game.penalties())
        kind = (call, has_penalty)
        check_unscaled(game.terms(), how_to_scale, reads=kind not in self._seen)
        if hooks:
            check_hooks_of_gradients(params, has_penalty=has_penalty)
        self._seen.add(kind)
        self.know_parts = self.know_parts or isinstance(game, MeanGame)

    @property
    def looks_for_old_parts(self) -> bool:
        """Whether the first step, or the one after it, is still to come."""
        return self._versions is not None

    def look_for_old_parts(self, game: AnyGame[Any], params: Iterable[Tensor]) -> None:
        """Warn if operations of the first call are in the graph of one after a step.

        Autograd raises for most: where it has kept a parameter that has moved since, or freed what
        it kept. It does neither where products follow and operations are linear.
        """
        if self._versions is None or self._left_out:
            return
        nodes = [term.grad_fn for term in game.terms().values() if term is not None]
        versions = self._versions
        moved = [param for param, version in versions.items() if param._version != version]
        if versions and not moved:
            return
        seen = set()
        while nodes:
            node: Any = nodes.pop()
            if node is None or node in seen or hasattr(node, "variable"):
                continue
            seen.add(node)
            if not versions:
                # The dictionary lives as long as the operation.
                node.metadata[self] = True
            elif self in node.metadata and (found := _leads_to(node, moved)) is not None:
                warn(STALE.format(shape=tuple(found.shape)), StepWarning)
                break
            nodes += [following for following, _ in node.next_functions]
        self._versions = None if versions else {param: param._version for param in params}


def _leads_to(node: object, params: Iterable[Tensor]) -> Tensor | None:
    """Return the first parameter to which the graph behind an operation leads."""
    by_identity = {id(param): param for param in params}
    leaves = (by_identity.get(id(getattr(each, "variable", None))) for each in walk([node]))
    return next((leaf for leaf in leaves if leaf is not None), None)
