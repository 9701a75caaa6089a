"""What stays the same from step to step, until groups or trainable parameters change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Any

from torch import Tensor

from compopt._flat import FlatLayout
from compopt.distributed import Placement
from compopt.optim.groups import Segment, trainable


@dataclass
class Plan:
    """A player's trainable parameters, in the order of its vectors.

    Attributes:
        entries: the parameters, each with its group.
        params: the parameters.
        layout: of the part of its vectors that this process keeps.
        parts: the groups that have trainable parameters, where the entries of each are in the
            vectors, and which of ``params`` they are.
        segments: of this step, once they have been asked for.
    """

    entries: list[tuple[Tensor, dict[str, Any]]]
    params: list[Tensor]
    layout: FlatLayout
    parts: list[tuple[dict[str, Any], slice, slice]]
    segments: list[Segment] | None = None
    _groups: list[Any] = field(default_factory=list)
    _members: list[Tensor] = field(default_factory=list)
    _flags: list[bool] = field(default_factory=list)

    @classmethod
    def of(
        cls, param_groups: Sequence[dict[str, Any]], player: Any, placement: Placement
    ) -> "Plan":
        """Return the plan of a player.

        Raises:
            ValueError: if all its parameters are frozen.
        """
        entries = trainable(param_groups, player)
        params = [param for param, _ in entries]
        layout = placement.layout(params)
        parts, first, start = [], 0, 0
        groups = [group for group in param_groups if group["player"] == player]
        for group in groups:
            count = sum(param.requires_grad for param in group["params"])
            # A rank may keep no entry of a group and still has to join the collectives for it.
            if count:
                size = sum(layout.sizes[first : first + count])
                where, which = slice(start, start + size), slice(first, first + count)
                parts.append((group, where, which))
                first, start = first + count, start + size
        members = [param for group in groups for param in group["params"]]
        flags = [param.requires_grad for param in members]
        return cls(entries, params, layout, parts, None, groups, members, flags)

    def is_current(self, param_groups: Sequence[Mapping[str, Any]], player: Any) -> bool:
        """Return whether the player still has these parameters in these groups."""
        groups = [group for group in param_groups if group["player"] == player]
        members = [param for group in groups for param in group["params"]]
        return (
            len(groups) == len(self._groups)
            and len(members) == len(self._members)
            and all(map(is_, groups, self._groups))
            and all(map(is_, members, self._members))
            and [param.requires_grad for param in members] == self._flags
        )
