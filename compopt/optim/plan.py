"""Plans that are kept from step to step, and how a step reads the hyperparameters of groups."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compopt._flat import FlatLayout
from compopt._remedies import called, how_to_move_alone
from compopt.distributed import Placement

LARGEST_ROUNDING = 1e-6
"""Largest rounding error of a learning rate that a schedule takes down to zero."""


def learning_rate(group: dict[str, Any]) -> float | Tensor:
    """Return the group's learning rate, at least 0: schedules may end below it by rounding."""
    lr: float | Tensor = group["lr"]
    return lr.clamp(min=0) if isinstance(lr, Tensor) else max(lr, 0.0)


def without_rounding(lr: Any) -> Any:
    """Return a learning rate for a check: 0 if it is negative only by rounding."""
    is_read = isinstance(lr, float)
    if isinstance(lr, Tensor):
        is_read = lr.device.type == "cpu" and lr.dim() == 0
    return 0.0 if is_read and -LARGEST_ROUNDING <= lr < 0 else lr


def interaction_strength(group: dict[str, Any]) -> float | Tensor:
    """Return the step size of the group's interaction terms.

    It is the learning rate if ``interaction`` is None or 0. With 0, nothing is solved and this is
    the step size of the move itself.
    """
    return group["interaction"] or learning_rate(group)


class Segment(NamedTuple):
    """A slice of a player's flat vector with one group and one step count."""

    where: slice
    group: dict[str, Any]
    num_steps: float | Tensor


def trainable(
    param_groups: Sequence[dict[str, Any]], player: Any
) -> list[tuple[Tensor, dict[str, Any]]]:
    """Return the parameters of ``player`` that require grad, in order, each with its group.

    Raises:
        ValueError: if all are frozen.
    """
    entries = [
        (param, group)
        for group in param_groups
        if group["player"] == player
        for param in group["params"]
        if param.requires_grad
    ]
    if not entries:
        raise ValueError(
            f"All parameters of {called(player)} are frozen; a step needs some: call "
            f"`requires_grad_(True)`. {how_to_move_alone(player)}"
        )
    return entries


@dataclass
class Plan:
    """A player's trainable parameters, in the order of its vectors.

    Attributes:
        player: the player.
        entries: the parameters, each with its group.
        params: the parameters.
        size: the number of entries of all parameters.
        layout: layout of the part of the player's vectors that this process keeps.
        parts: for each group with trainable parameters: the group, its slice of the vectors and its
            slice of ``params``.
        groups: all of the player's groups.
        segments: the segments of this step; None until they are computed.
        work: vectors that are kept from step to step, by whether the player's move is solved for.
    """

    player: Any
    entries: list[tuple[Tensor, dict[str, Any]]]
    params: list[Tensor]
    size: int
    layout: FlatLayout
    parts: list[tuple[dict[str, Any], slice, slice]]
    groups: list[dict[str, Any]]
    segments: list[Segment] | None = None
    work: dict[bool, list[Tensor]] = field(default_factory=dict)
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
        size = sum(param.numel() for param in params)
        return cls(
            player, entries, params, size, layout, parts, groups, _members=members, _flags=flags
        )

    def is_current(self, param_groups: Sequence[Mapping[str, Any]], player: Any) -> bool:
        """Return True if the player's groups and parameters, trainable or not, are the same."""
        groups, members, flags = [], [], []
        for group in param_groups:
            if group["player"] == player:
                groups.append(group)
                for param in group["params"]:
                    members.append(param)
                    flags.append(param.requires_grad)
        return (
            flags == self._flags
            and len(groups) == len(self.groups)
            and all(map(is_, groups, self.groups))
            and all(map(is_, members, self._members))
        )

    @property
    def is_adaptive(self) -> bool:
        """Whether the player keeps an average of squared gradients."""
        betas = [group.get("beta") for group in self.groups]
        return betas.count(None) < len(betas)

    def segments_of(self, counts: Sequence[Any]) -> list[Segment]:
        """Return the fewest segments that cover the player's vectors.

        Args:
            counts: the step count of each parameter, a number or a tensor on a device. Tensors are
                not read: counts are treated as equal only if they are the same tensor.
        """
        first = counts[0]
        on_device = isinstance(first, Tensor)
        same = all(c is first for c in counts) if on_device else len(counts) == counts.count(first)
        if same:
            return [Segment(where, group, first) for group, where, _ in self.parts]
        found: list[Segment] = []
        start = 0
        for (_, group), size, count in zip(self.entries, self.layout.sizes, counts, strict=True):
            where = slice(start, start + size)
            *_, last = found or [Segment(where, {}, count)]
            same = count is last.num_steps if on_device else count == last.num_steps
            if last.group is group and same:
                found[-1] = last._replace(where=slice(last.where.start, where.stop))
            else:
                found.append(Segment(where, group, count))
            start = where.stop
        return found


class Settings(NamedTuple):
    """What a step does, according to the hyperparameters of all groups.

    Attributes:
        interacts: whether the step uses the interaction of the players.
        is_rescaled: whether some group has a separate step size for it.
        clips: whether some group's gradient is clipped.
        has_mirrors: whether some group's coordinates are not Euclidean.
    """

    interacts: bool
    is_rescaled: bool
    clips: bool
    has_mirrors: bool

    @classmethod
    def of(cls, param_groups: Iterable[Mapping[str, Any]]) -> "Settings":
        """Return the settings of these groups.

        Raises:
            ValueError: if ``interaction`` is 0 in some groups and not in others.
        """
        does, does_not, is_rescaled, clips, has_mirrors = False, False, False, False, False
        for group in param_groups:
            strength = group["interaction"]
            does, does_not = does or strength != 0, does_not or strength == 0
            is_rescaled = is_rescaled or bool(strength)
            clips = clips or group["max_grad_norm"] is not None
            has_mirrors = has_mirrors or group["mirror"] != "euclidean"
        if does and does_not:
            raise ValueError(
                "`interaction` must be 0 in all groups of both players or in none. Zero everywhere "
                "is the step without interaction; for a weak one in some groups, give them a small "
                "value."
            )
        return cls(does, is_rescaled, clips, has_mirrors)


def scale_to_learning_rate(segments: Iterable[Segment], *vectors: Tensor) -> None:
    """Scale vectors [size of the player] in place, from ``interaction`` to the learning rate."""
    for where, group, _ in segments:
        if group["interaction"]:
            factor = learning_rate(group) / group["interaction"]
            for vector in vectors:
                vector[where].mul_(factor)


def scaled_to_strength(segments: Iterable[Segment], delta: Tensor) -> Tensor:
    """Return a move as it was before :func:`scale_to_learning_rate`; ``delta`` if that is the same.

    Returns zeros where the learning rate is zero.
    """
    result = delta
    for where, group, _ in segments:
        if group["interaction"]:
            result = delta.clone() if result is delta else result
            rate = learning_rate(group)
            if not isinstance(rate, Tensor):
                # Filled on the device: a copy from the host would wait for it.
                rate = delta.new_full((), rate)
            result[where].mul_(torch.where(rate > 0, group["interaction"] / rate, 0))
    return result
