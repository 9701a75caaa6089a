"""Per-parameter state that is stored in flat vectors."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from compopt._typing import Player
from compopt.distributed import Placement
from compopt.optim.commit import Commit

State = MutableMapping[Tensor, dict[str, Any]]


class FlatState:
    """Reads and writes per-parameter state tensors as one vector per player.

    ``optimizer.state[param]`` holds views of the vectors written here, so checkpoints see ordinary
    per-parameter state and a step sees one vector. Where the views have been replaced (a loaded
    checkpoint, a changed set of parameters), the vector is gathered anew.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._written: dict[tuple[Player, str], tuple[Tensor, list[Tensor]]] = {}

    def read(
        self, state: State, player: Player, params: Sequence[Tensor], key: str
    ) -> Tensor | None:
        """Return the vector [size of the player], or None if no parameter has ``key``.

        Parameters that lack it count as zeros. The vector may be the stored one: do not modify it.
        """
        tensors = _entries(state, params, key)
        if all(tensor is None for tensor in tensors):
            return None
        vector = self._vector_behind(player, key, tensors)
        return self._gathered(params, tensors) if vector is None else vector

    def stage(
        self, commit: Commit, state: State, player: Player, params: Sequence[Tensor], key: str
    ) -> Tensor:
        """Return the vector [size of the player] that later writes of ``commit`` may change.

        It is the stored one where that is still in use, so that addresses stay the same from step
        to step. Otherwise it is a new one of the same values, zeros where there are none, which
        ``commit`` will store; the same one each time within a commit.
        """
        staged = commit.vectors.get((player, key))
        if staged is not None:
            return staged
        tensors = _entries(state, params, key)
        stored = self._vector_behind(player, key, tensors)
        if stored is not None:
            return stored
        vector = self._gathered(params, tensors)
        views = self._placement.layout(params).views(vector)
        entries = [self._placement.entry(p, view) for p, view in zip(params, views, strict=True)]

        def attach() -> None:
            self._written[player, key] = (vector, entries)
            for param, entry in zip(params, entries, strict=True):
                state[param][key] = entry

        commit.add(attach)
        commit.vectors[player, key] = vector
        return vector

    def _gathered(self, params: Sequence[Tensor], tensors: Sequence[Tensor | None]) -> Tensor:
        layout = self._placement.layout(params)
        # Sharded state is flat, and may be loaded where it is whole.
        pieces = [
            None if tensor is None else self._placement.piece(param, tensor).reshape(shape)
            for param, tensor, shape in zip(params, tensors, layout.shapes, strict=True)
        ]
        return layout.flatten(pieces)

    def _vector_behind(
        self, player: Player, key: str, tensors: Sequence[Tensor | None]
    ) -> Tensor | None:
        vector, entries = self._written.get((player, key), (None, []))
        same = len(entries) == len(tensors) and all(
            entry is tensor for entry, tensor in zip(entries, tensors, strict=True)
        )
        return vector if same else None


def _entries(state: State, params: Sequence[Tensor], key: str) -> list[Tensor | None]:
    # Looking must not make an entry.
    return [state[param].get(key) if param in state else None for param in params]


def drop_strangers(state: State, param_groups: Sequence[Mapping[str, Any]]) -> None:
    """Drop the state of parameters that are in no group any more, as where they were replaced.

    Nothing else would, and a state dict cannot name them. Keys that are no tensors stay.
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
        state: of the optimizer, loaded from ``state_dict``.
        params: of all groups, in order.
        state_dict: what was loaded.
        capturable: whether step counts live on the device.
    """
    # Equal counts on the device are one tensor; loading is the time to see which are.
    counts: dict[tuple[float, torch.device], Tensor] = {}
    saved_ids = [index for group in state_dict["param_groups"] for index in group["params"]]
    for index, param in zip(saved_ids, params, strict=True):
        for key, saved in state_dict["state"].get(index, {}).items():
            if key == "step" and isinstance(saved, int | float):
                # Before torch 1.12 counts were numbers, and some tools still write them so.
                saved = torch.tensor(float(saved), dtype=torch.float32, device="cpu")
            if isinstance(saved, Tensor):
                device = param.device if capturable or key != "step" else torch.device("cpu")
                copy = saved.to(device=device, copy=True)
                if key == "step" and capturable:
                    copy = counts.setdefault((float(saved), device), copy)
                state[param][key] = copy


@contextmanager
def kept_whole(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put groups and state back where an error comes from loading others in their place."""
    state, groups = optimizer.state, optimizer.param_groups
    try:
        yield
    except BaseException:
        optimizer.state, optimizer.param_groups = state, groups
        raise


def unshare_state(state: State) -> None:
    """Copy the tensors of loaded state, which ``torch.optim`` shares with the dictionary."""
    for param, entry in state.items():
        if isinstance(param, Tensor):
            for key, value in entry.items():
                entry[key] = value.clone() if isinstance(value, Tensor) else value
