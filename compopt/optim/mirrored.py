"""Steps in the coordinates of the groups' mirror maps."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from compopt.derivatives import Derivatives
from compopt.distributed import Placement
from compopt.optim.commit import Advance, Commit
from compopt.optim.mirrors import (
    Chart,
    Mirror,
    PlayerCharts,
    check_feasible,
    check_mirror,
    make_chart,
)
from compopt.optim.players import ProcessGroup
from compopt.optim.two_phase import TwoPhaseOptimizer

MirrorOrPair: TypeAlias = Mirror | tuple[Mirror, Mirror]


class MirroredOptimizer(TwoPhaseOptimizer):
    """Takes steps in coordinates in which the metric of each group's mirror map is the identity.

    Where all groups are Euclidean these are the parameters themselves, and nothing is done.
    """

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._charts: dict[Tensor, Chart] = {}
        self._player_charts: dict[Any, PlayerCharts] = {}

    def _defaults_of(self, player: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
        mirror, count = defaults["mirror"], len(self._players)
        # A box is a tuple as well, which begins with its name.
        is_box = isinstance(mirror, tuple | list) and mirror[:1] in (("box",), ["box"])
        if isinstance(mirror, tuple | list) and len(mirror) == count and not is_box:
            mirror = mirror[self._players.index(player)]
        return {**super()._defaults_of(player, defaults), "mirror": mirror}

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        mirror = group["mirror"]
        check_mirror(mirror)
        if mirror == "euclidean":
            return
        if group["weight_decay"]:
            raise ValueError(
                f"`weight_decay` must be 0 with `mirror` {mirror!r}, got "
                f"{group['weight_decay']!r}: decay would leave the set. Add a term to the loss."
            )
        if mirror == "positive-definite" and self.capturable:
            raise ValueError(f"`capturable` forbids `mirror` {mirror!r}, which reads values.")
        _check_whole(mirror, self._placement)
        for entry in group.get("params", ()):
            check_feasible(mirror, entry[1] if isinstance(entry, tuple) else entry)

    def _place(self, process_group: ProcessGroup) -> Placement:
        placement = super()._place(process_group)
        for group in getattr(self, "param_groups", ()):
            if group["mirror"] != "euclidean":
                _check_whole(group["mirror"], placement)
        return placement

    def _to_local_coordinates(self, derivatives: Derivatives[Any]) -> None:
        """Let gradients and products be in the coordinates of the mirror maps, where they are."""
        self._charts, self._player_charts = {}, {}
        if all(group["mirror"] == "euclidean" for group in self.param_groups):
            return
        for player, layout in derivatives.layouts.items():
            entries = self._entries(player)
            made = [
                make_chart(group["mirror"], param.detach().to(layout.dtype))
                for param, group in entries
            ]
            self._player_charts[player] = PlayerCharts(layout, made)
            for (param, _), chart in zip(entries, made, strict=True):
                if chart is not None:
                    self._charts[param] = chart
        derivatives.use_coordinates(self._player_charts)

    def _magnitude(self, player: Any, grad: Tensor) -> Tensor:
        """Return what adaptive step sizes average the square of; ``grad`` where it is Euclidean."""
        return self._player_charts[player].magnitude(grad) if self._player_charts else grad

    def _stage_group(
        self,
        commit: Commit,
        group: dict[str, Any],
        params: Sequence[Tensor],
        moves: Sequence[Tensor],
        advance: Advance,
    ) -> None:
        # The parameters of a group have one mirror map.
        if params[0] not in self._charts:
            super()._stage_group(commit, group, params, moves, advance)
            return
        for param, move in zip(params, moves, strict=True):
            moved = self._charts[param].moved(move).to(param.dtype)
            commit.copy(param, moved if advance is True else moved.where(advance, param))


def _check_whole(mirror: Mirror, placement: Placement) -> None:
    if placement.is_sharded:
        raise ValueError(
            f"`mirror` {mirror!r} needs whole vectors, which Sharded does not keep. Pass the "
            "process group itself, or `compopt.distributed.Replicated(group)`."
        )
