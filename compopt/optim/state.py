"""Per-parameter state that is stored in flat vectors."""

from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compopt._typing import Player
from compopt.distributed import Placement
from compopt.optim.commit import Advance, Commit

State = MutableMapping[Tensor, dict[str, Any]]


STEP = "step"
"""The key of a parameter's step count."""


class FlatState:
    """Reads and writes per-parameter state tensors as one vector per player.

    ``optimizer.state[param]`` holds views of the vectors written here, so checkpoints see ordinary
    per-parameter state and a step sees one vector. If the views have been replaced (a loaded
    checkpoint, a changed set of parameters), the vector is gathered again.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._written: dict[tuple[Player, str], tuple[Tensor, list[Tensor]]] = {}
        # Cache of vectors found in the state during a step; None outside of steps.
        self.seen: dict[tuple[Player, str], Tensor | None] | None = None

    def read(
        self, state: State, player: Player, params: Sequence[Tensor], key: str
    ) -> Tensor | None:
        """Return the vector [size of the player], or None if no parameter has ``key``.

        Parameters that lack it count as zeros. The vector may be the stored one: do not modify it.
        """
        vector = self._stored(state, player, params, key)
        if vector is not None:
            return vector
        tensors = _entries(state, params, key)
        if all(tensor is None for tensor in tensors):
            return None
        return self._gathered(params, tensors)

    def stage(
        self, commit: Commit, state: State, player: Player, params: Sequence[Tensor], key: str
    ) -> Tensor:
        """Return the vector [size of the player] that later writes of ``commit`` may change.

        This is the stored vector if it is still in use, so that addresses stay the same from step
        to step. Otherwise it is a new vector of the same values, zeros where there are none, which
        ``commit`` will store. Within a commit, all calls return the same vector.
        """
        staged = commit.vectors.get((player, key))
        if staged is not None:
            return staged
        stored = self._stored(state, player, params, key)
        if stored is not None:
            return stored
        vector = self._gathered(params, _entries(state, params, key))
        views = self._placement.layout(params).views(vector)
        entries = [self._placement.entry(p, view) for p, view in zip(params, views, strict=True)]

        self._attach(commit, state, player, params, key, vector, entries)
        commit.vectors[player, key] = vector
        return vector

    def counts(self, state: State, player: Player, params: Sequence[Tensor]) -> list[float]:
        """Return the step count of each parameter, for counts that live on the host."""
        vector = self._stored(state, player, params, STEP)
        if vector is None:
            return [float(count or 0) for count in _entries(state, params, STEP)]
        numbers: list[float] = vector.tolist()
        return numbers

    def stage_counts(
        self,
        commit: Commit,
        state: State,
        player: Player,
        params: Sequence[Tensor],
        advance: Advance | None,
        *,
        on_device: bool,
    ) -> bool:
        """Add an increment of the parameters' step counts to a commit; missing counts start at 0.

        As in torch.optim, a count lives on the host unless a device graph has to advance it.

        Args:
            commit: the commit to add to.
            state: the state of the optimizer.
            player: the player.
            params: the player's parameters.
            advance: whether the step is taken; None to create missing counts, without increments.
            on_device: whether counts live on the device. If True, parameters that have advanced
                together so far share one count tensor: equal counts are known without a read, and
                their parameters can be updated together. If False, counts lie in one vector.

        Returns:
            True if there may be parameters that had no count.
        """
        if not on_device:
            vector = self._stored(state, player, params, STEP)
            is_new = vector is None
            if vector is None:
                numbers = self.counts(state, player, params)
                vector = torch.tensor(numbers, dtype=torch.float32, device="cpu")
                self._attach(commit, state, player, params, STEP, vector, [*vector.unbind()])
            if advance is not None:
                commit.add(partial(vector.add_, 1), vector)
            return is_new
        counts = _entries(state, params, STEP)
        # Other tools may store anything under keys that are not tensors.
        entries = [entry for key, entry in state.items() if isinstance(key, Tensor)]
        holders = Counter(id(entry[STEP]) for entry in entries if STEP in entry)
        own = Counter(id(count) for count in counts if count is not None)
        advanced: dict[int, Tensor] = {}
        for param, count in zip(params, counts, strict=True):
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
            for param, count in zip(params, assigned, strict=True):
                state[param][STEP] = count

        commit.add(assign)
        steps = list(advanced.values())
        if advance is not None:
            added: Any = [1 if advance is True else advance] * len(steps)
            commit.add(lambda: torch._foreach_add_(steps, added), steps[0])
        return any(count is None for count in counts)

    def _attach(
        self,
        commit: Commit,
        state: State,
        player: Player,
        params: Sequence[Tensor],
        key: str,
        vector: Tensor,
        entries: list[Tensor],
    ) -> None:
        """Make the state of parameters pieces of a vector when ``commit`` runs."""

        def attach() -> None:
            self._written[player, key] = (vector, entries)
            for param, entry in zip(params, entries, strict=True):
                state[param][key] = entry

        commit.add(attach)

    def _gathered(self, params: Sequence[Tensor], tensors: Sequence[Tensor | None]) -> Tensor:
        layout = self._placement.layout(params)
        # Reshape: sharded state is flat, and may be loaded into an optimizer with whole state.
        pieces = [
            None if tensor is None else self._placement.piece(param, tensor).reshape(shape)
            for param, tensor, shape in zip(params, tensors, layout.shapes, strict=True)
        ]
        return layout.flatten(pieces)

    def _stored(
        self, state: State, player: Player, params: Sequence[Tensor], key: str
    ) -> Tensor | None:
        """Return the vector whose pieces the state holds, None if there is none."""
        seen, name = self.seen, (player, key)
        if seen is not None and name in seen:
            return seen[name]
        vector, entries = self._written.get(name, _NOTHING)
        if len(entries) != len(params):
            vector = None
        for param, entry in zip(params, entries, strict=False):
            # The state is a defaultdict: indexing would create an entry.
            held = state.get(param)
            if held is None or held.get(key) is not entry:
                vector = None
                break
        if seen is not None:
            seen[name] = vector
        return vector


_NOTHING: tuple[None, list[Tensor]] = None, []


def _entries(state: State, params: Sequence[Tensor], key: str) -> list[Tensor | None]:
    return [None if held is None else held.get(key) for held in map(state.get, params)]


def drop_removed(state: State, param_groups: Sequence[Mapping[str, Any]]) -> None:
    """Drop the state of parameters that are in no group any more, as when they were replaced.

    Torch keeps this state, but a state dict cannot name it. Keys that are not tensors stay.
    """
    present = {id(param) for group in param_groups for param in group["params"]}
    for key in [key for key in state if isinstance(key, Tensor) and id(key) not in present]:
        del state[key]


def restore_state(
    state: State,
    params: Sequence[Tensor],
    state_dict: Mapping[str, Any],
    *,
    capturable: bool,
) -> None:
    """Undo the cast of loaded state to the parameters' dtype.

    ``torch.optim`` casts floating-point state to the dtype of its parameter on loading, which
    would round the float32 vectors of half-precision parameters.

    Args:
        state: the state of the optimizer, loaded from ``state_dict``.
        params: the parameters of all groups, in order.
        state_dict: the loaded state dict.
        capturable: whether step counts live on the device.
    """
    # Equal counts on the device share one tensor. Only here are their values compared.
    counts: dict[tuple[float, torch.device], Tensor] = {}
    saved_ids = [index for group in state_dict["param_groups"] for index in group["params"]]
    for index, param in zip(saved_ids, params, strict=True):
        for key, saved in state_dict["state"].get(index, {}).items():
            if key == "step" and isinstance(saved, int | float):
                # Before torch 1.12 counts were numbers, and some tools still save numbers.
                saved = torch.tensor(float(saved), dtype=torch.float32, device="cpu")
            if isinstance(saved, Tensor):
                device = param.device if capturable or key != "step" else torch.device("cpu")
                copy = saved.to(device=device, copy=True)
                if key == "step" and capturable:
                    copy = counts.setdefault((float(saved), device), copy)
                state[param][key] = copy


@contextmanager
def kept_whole(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Restore groups and state if loading raises an error."""
    state, groups = optimizer.state, optimizer.param_groups
    try:
        yield
    except BaseException:
        optimizer.state, optimizer.param_groups = state, groups
        raise


def unshare_state(state: State) -> None:
    """Copy the tensors of loaded state, which ``torch.optim`` shares with the state dict."""
    for param, entry in state.items():
        if isinstance(param, Tensor):
            for key, value in entry.items():
                entry[key] = value.clone() if isinstance(value, Tensor) else value
