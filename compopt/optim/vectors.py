"""The parameters of a player and their state, as flat vectors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compopt._remedies import called, how_to_move_alone
from compopt.distributed import Placement
from compopt.optim.capture import warn_of_fixed_rates
from compopt.optim.commit import Advance, Commit, stage_moves
from compopt.optim.mirrors import Chart
from compopt.optim.state import STEP, State, drop_removed


class Segment(NamedTuple):
    """A slice of a player's vectors with one group and one step count."""

    where: slice
    group: dict[str, Any]
    num_steps: float | Tensor


class Part(NamedTuple):
    """The trainable parameters of a group.

    Attributes:
        where: their slice of the player's vectors.
        group: the group.
        which: their slice of the player's parameters.
    """

    where: slice
    group: dict[str, Any]
    which: slice


class PlayerVectors:
    """The trainable parameters of a player and their state, as vectors of one layout.

    ``optimizer.state[param]`` holds views of the state vectors written here, so checkpoints see
    ordinary per-parameter state and a step sees one vector. If the views have been replaced, the
    vector is gathered again.

    Attributes:
        player: the player.
        params: the parameters.
        group_of: the group of each parameter.
        parts: the groups with trainable parameters.
        size: number of entries of all parameters.
        layout: layout of the part of the vectors that this process keeps.
        on_device: whether step counts live on the device, as a device graph requires.
        work: vectors kept from step to step, by whether the player's move is solved for.
    """

    def __init__(
        self,
        player: Any,
        param_groups: Sequence[dict[str, Any]],
        state: State,
        placement: Placement,
        *,
        on_device: bool,
    ) -> None:
        """Raise ValueError if all parameters of the player are frozen."""
        self.player, self.on_device = player, on_device
        self._placement, self._state, self._all_groups = placement, state, param_groups
        self._groups = [group for group in param_groups if group["player"] == player]
        self._members = [param for group in self._groups for param in group["params"]]
        self._flags = [param.requires_grad for param in self._members]
        entries = [(p, g) for g in self._groups for p in g["params"] if p.requires_grad]
        if not entries:
            raise ValueError(
                f"All parameters of {called(player)} are frozen; a step needs some: call "
                f"`requires_grad_(True)`. {how_to_move_alone(player)}"
            )
        self.params = [param for param, _ in entries]
        self.group_of = [group for _, group in entries]
        self.size = sum(param.numel() for param in self.params)
        self.layout = placement.layout(self.params)
        self.parts: list[Part] = []
        first, start = 0, 0
        for group in self._groups:
            count = sum(param.requires_grad for param in group["params"])
            # A rank may keep no entry of a group and still has to join the collectives for it.
            if count:
                size = sum(self.layout.sizes[first : first + count])
                part = Part(slice(start, start + size), group, slice(first, first + count))
                self.parts.append(part)
                first, start = first + count, start + size
        self.work: dict[bool, list[Tensor]] = {}
        # By key: a state vector, and its views that were put into the state.
        self._written: dict[str, tuple[Tensor, list[Tensor]]] = {}
        # What was looked up in a step; None outside of steps.
        self._found: dict[str, Tensor | None] | None = None
        self._held: list[dict[str, Any] | None] = []
        self._segments: list[Segment] | None = None

    def are_current(self, param_groups: Sequence[Mapping[str, Any]], state: State) -> bool:
        """Return True if state, groups and parameters, trainable or not, are the same."""
        groups = [group for group in param_groups if group["player"] == self.player]
        members = [param for group in groups for param in group["params"]]
        return (
            state is self._state
            and len(groups) == len(self._groups)
            and len(members) == len(self._members)
            and all(map(is_, groups, self._groups))
            and all(map(is_, members, self._members))
            and [param.requires_grad for param in members] == self._flags
        )

    def begin_step(self) -> None:
        """Keep what is looked up in the state until :meth:`end_step`."""
        self._held = [self._state.get(param) for param in self.params]
        self._found, self._segments = {}, None

    def end_step(self) -> None:
        """Look everything up again from now on."""
        self._found = None

    @property
    def is_adaptive(self) -> bool:
        """Whether the player keeps an average of squared gradients."""
        betas = [group.get("beta") for group in self._groups]
        return betas.count(None) < len(betas)

    @property
    def segments(self) -> Sequence[Segment]:
        """The fewest segments that cover the vectors."""
        if self._segments is None or self._found is None:
            self._segments = self._cut(self._counts())
        return self._segments

    def read(self, key: str) -> Tensor | None:
        """Return a state vector [size], or None if no parameter has ``key``.

        Parameters that lack it count as zeros. The vector may be the stored one: modify it only to
        update the state.
        """
        vector = self._stored(key)
        if vector is not None:
            return vector
        tensors = self._entries(key)
        return None if all(tensor is None for tensor in tensors) else self._gathered(tensors)

    def stage(self, commit: Commit, key: str) -> Tensor:
        """Return a state vector [size] that later writes of ``commit`` may change.

        This is the stored vector if it is still in use, so that addresses stay the same from step
        to step. Otherwise it is a new vector of the same values, zeros where there are none, which
        ``commit`` will store. Within a commit, all calls return the same vector.
        """
        staged = commit.vectors.get((self.player, key))
        if staged is not None:
            return staged
        stored = self._stored(key)
        if stored is not None:
            return stored
        vector = self._gathered(self._entries(key))
        views = zip(self.params, self.layout.views(vector), strict=True)
        self._attach(commit, key, vector, [self._placement.entry(p, view) for p, view in views])
        commit.vectors[self.player, key] = vector
        return vector

    def stage_step(
        self,
        commit: Commit,
        delta: Tensor,
        advance: Advance,
        state: Mapping[str, Tensor] | None = None,
        charts: Mapping[Tensor, Chart] | None = None,
    ) -> None:
        """Add a step to a commit: decay, move, store ``state``, count.

        Args:
            commit: the commit to add to.
            delta: [size] the move.
            advance: whether the step is taken.
            state: vectors [size] by key.
            charts: mirror maps of parameters; ``delta`` is in their local coordinates.
        """
        if self.on_device:
            warn_of_fixed_rates(self.params, self.group_of)
        views = self._placement.whole(self.params, self.layout, delta)
        for _, group, which in self.parts:
            params, moves = self.params[which], views[which]
            # All parameters of a group have the same mirror map.
            if charts and params[0] in charts:
                for param, move in zip(params, moves, strict=True):
                    moved = charts[param].moved(move).to(param.dtype)
                    commit.copy(param, moved if advance is True else moved.where(advance, param))
                continue
            decay = group["weight_decay"]
            factor = 1 - group["lr"] * decay if decay else None
            stage_moves(commit, params, moves, factor, advance)
        for key, vector in (state or {}).items():
            stored = self.stage(commit, key)
            if stored is not vector:
                commit.copy(stored, vector if advance is True else vector.where(advance, stored))
        self.stage_counts(commit, advance)

    def stage_counts(self, commit: Commit, advance: Advance | None) -> None:
        """Add an increment of the step counts to a commit; missing counts start at 0.

        As in torch.optim, a count lives on the host unless a device graph has to advance it. On the
        host, counts lie in one vector. On a device, parameters that have advanced together so far
        share one count: equal counts are known without a read, and their parameters can be updated
        together.

        Args:
            commit: the commit to add to.
            advance: whether the step is taken; None to create missing counts, without increments.
        """
        if self.on_device:
            counts = self._stage_shared_counts(commit, advance)
            is_new = any(count is None for count in counts)
        else:
            vector = self._stored(STEP)
            is_new = vector is None
            if vector is None:
                vector = torch.tensor(self._counts(), dtype=torch.float32, device="cpu")
                self._attach(commit, STEP, vector, [*vector.unbind()])
            if advance is not None:
                commit.add(partial(vector.add_, 1), vector)
        if is_new:
            # A new parameter may have replaced another.
            commit.add(partial(drop_removed, self._state, self._all_groups))

    def _stage_shared_counts(self, commit: Commit, advance: Advance | None) -> list[Tensor | None]:
        state, counts = self._state, self._entries(STEP)
        # Other tools may store anything under keys that are not tensors.
        entries = [entry for key, entry in state.items() if isinstance(key, Tensor)]
        holders = Counter(id(entry[STEP]) for entry in entries if STEP in entry)
        own = Counter(id(count) for count in counts if count is not None)
        advanced: dict[int, Tensor] = {}
        for param, count in zip(self.params, counts, strict=True):
            if id(count) not in advanced:
                if count is None:
                    advanced[id(count)] = torch.zeros((), dtype=torch.float32, device=param.device)
                elif advance is not None and holders[id(count)] > own[id(count)]:
                    # Clone: other parameters that share this count do not advance.
                    advanced[id(count)] = count.clone()
                else:
                    advanced[id(count)] = count
        assigned = [advanced[id(count)] for count in counts]

        def assign() -> None:
            for param, count in zip(self.params, assigned, strict=True):
                state[param][STEP] = count

        commit.add(assign)
        steps = list(advanced.values())
        if advance is not None:
            added: Any = [1 if advance is True else advance] * len(steps)
            commit.add(lambda: torch._foreach_add_(steps, added), steps[0])
        return counts

    def _counts(self) -> Sequence[Any]:
        """Return the step count of each parameter: numbers, or tensors on the device."""
        if self.on_device:
            counts = self._entries(STEP)
            if any(count is None for count in counts):
                zero = torch.zeros((), device=self.layout.device)
                return [zero if count is None else count for count in counts]
            return counts
        vector = self._stored(STEP)
        if vector is None:
            return [float(count or 0) for count in self._entries(STEP)]
        numbers: list[float] = vector.tolist()
        return numbers

    def _cut(self, counts: Sequence[Any]) -> list[Segment]:
        """Return the segments for these counts; tensors are equal if they are the same tensor."""
        first = counts[0]
        on_device = isinstance(first, Tensor)
        same = all(c is first for c in counts) if on_device else len(counts) == counts.count(first)
        if same:
            return [Segment(where, group, first) for where, group, _ in self.parts]
        found: list[Segment] = []
        start = 0
        for group, size, count in zip(self.group_of, self.layout.sizes, counts, strict=True):
            where = slice(start, start + size)
            *_, last = found or [Segment(where, {}, count)]
            same = count is last.num_steps if on_device else count == last.num_steps
            if last.group is group and same:
                found[-1] = last._replace(where=slice(last.where.start, where.stop))
            else:
                found.append(Segment(where, group, count))
            start = where.stop
        return found

    def _attach(self, commit: Commit, key: str, vector: Tensor, entries: list[Tensor]) -> None:
        """Make the state of parameters pieces of a vector when ``commit`` runs."""

        def attach() -> None:
            self._written[key] = (vector, entries)
            for param, entry in zip(self.params, entries, strict=True):
                self._state[param][key] = entry

        commit.add(attach)

    def _gathered(self, tensors: Sequence[Tensor | None]) -> Tensor:
        # Reshape: sharded state is flat, and may be loaded into an optimizer with whole state.
        pieces = [
            None if tensor is None else self._placement.piece(param, tensor).reshape(shape)
            for param, tensor, shape in zip(self.params, tensors, self.layout.shapes, strict=True)
        ]
        return self.layout.flatten(pieces)

    def _states(self) -> Sequence[Mapping[str, Any] | None]:
        """Return the state of each parameter, None if there is none."""
        # The state is a defaultdict: indexing would create an entry.
        is_known = self._found is not None
        return self._held if is_known else [self._state.get(param) for param in self.params]

    def _entries(self, key: str) -> list[Tensor | None]:
        return [None if held is None else held.get(key) for held in self._states()]

    def _stored(self, key: str) -> Tensor | None:
        """Return the vector whose pieces the state holds, None if there is none."""
        found = self._found
        if found is not None and key in found:
            return found[key]
        vector, entries = self._written.get(key, _NOTHING)
        for held, entry in zip(self._states(), entries, strict=False):
            if held is None or held.get(key) is not entry:
                vector = None
                break
        if found is not None:
            found[key] = vector
        return vector


_NOTHING: tuple[None, list[Tensor]] = None, []
