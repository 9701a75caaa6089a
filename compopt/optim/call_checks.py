"""Checks of each call, and slower ones of first calls only."""

from collections.abc import Callable, Iterable, Sequence
from operator import is_
from typing import Any

from torch import Tensor

from compopt._checks import check_hooks_of_gradients
from compopt._graph import walk
from compopt._warn import warn
from compopt.game import AnyGame, MeanGame
from compopt.optim.report import StepWarning
from compopt.optim.scaling import check_unscaled
from compopt.optim.settings import without_rounding

STALE = (
    "A part of the loss was computed before the last step, which moved parameters that it depends "
    "on (the first of shape {shape}). Its value and derivatives are those at the old "
    "parameters. Recompute samples for each step, and `detach()` values that should not change."
)


class CallChecks:
    """Checks calls, most thoroughly the first of each kind, with penalties and without.

    Attributes:
        know_parts: True once the micro-batches of a call have been compared.
    """

    def __init__(self) -> None:
        self.know_parts = False
        self._seen: set[tuple[str, bool]] = set()
        self._left_out: set[str] = set()
        # Versions of the parameters at the first call, empty before it; None after the check.
        self._versions: dict[Tensor, int] | None = {}
        # By id of a group: its values at the last check, and the versions of tensors among them.
        self._checked: dict[int, tuple[list[Any], list[tuple[Tensor, int]]]] = {}

    def leave_out(self, call: str) -> None:
        """Skip the checks of this kind of call, of groups and of old parts."""
        self._left_out.add(call)

    def check_groups(
        self, groups: Iterable[dict[str, Any]], check: Callable[[dict[str, Any]], None]
    ) -> None:
        """Raise if a value that was set in a group since the last call is not valid.

        Args:
            groups: the groups of the optimizer.
            check: raises if a group is not valid.
        """
        for group in () if self._left_out else groups:
            values = [*group.values()]
            known, versions = self._checked.get(id(group), ([], []))
            is_known = len(known) == len(values) and all(map(is_, known, values))
            if is_known and all(tensor._version == version for tensor, version in versions):
                continue
            settings = {key: value for key, value in group.items() if key != "params"}
            check({**settings, "lr": without_rounding(group["lr"])})
            # Keep the values alive, so that no new object takes the identity of one.
            versions = [(v, v._version) for v in values if isinstance(v, Tensor)]
            self._checked[id(group)] = (values, versions)

    def check(
        self,
        call: str,
        game: AnyGame[Any],
        how_to_scale: str,
        params: Sequence[Tensor],
    ) -> None:
        """Raise if losses were scaled by hand, or hooks would not see gradients.

        Args:
            call: the kind of call.
            game: the game of the call.
            how_to_scale: what to do instead of scaling by hand.
            params: parameters whose hooks to check.
        """
        if call in self._left_out:
            return
        has_penalty = bool(game.penalties())
        kind = (call, has_penalty)
        check_unscaled(game.terms(), how_to_scale, reads=kind not in self._seen)
        if params:
            check_hooks_of_gradients(params, has_penalty=has_penalty)
        self._seen.add(kind)
        self.know_parts = self.know_parts or isinstance(game, MeanGame)

    @property
    def looks_for_old_parts(self) -> bool:
        """True until a call after the first step has been checked."""
        return self._versions is not None

    def look_for_old_parts(self, game: AnyGame[Any], params: Iterable[Tensor]) -> None:
        """Warn if the graph of a call after a step contains operations of the first call.

        Autograd itself raises in most cases: if it saved a parameter that has moved since, or has
        freed its saved tensors. It does neither if the graph is kept and operations are linear.
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
                # `metadata` lives as long as the operation.
                node.metadata[self] = True
            elif self in node.metadata and (found := _leads_to(node, moved)) is not None:
                warn(STALE.format(shape=tuple(found.shape)), StepWarning)
                break
            nodes += [following for following, _ in node.next_functions]
        self._versions = None if versions else {param: param._version for param in params}


def _leads_to(node: object, params: Iterable[Tensor]) -> Tensor | None:
    """Return the first parameter that the graph behind an operation reaches, or None."""
    by_identity = {id(param): param for param in params}
    leaves = (by_identity.get(id(getattr(each, "variable", None))) for each in walk([node]))
    return next((leaf for leaf in leaves if leaf is not None), None)
