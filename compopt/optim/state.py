"""The state of parameters: what is dropped, and what is restored after loading."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

State = MutableMapping[Tensor, dict[str, Any]]


STEP = "step"
"""The key of a parameter's step count."""


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
