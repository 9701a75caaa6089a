"""Checks of a state dict, all made before anything is loaded."""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor

NOT_NEGATIVE = frozenset({"exp_avg_sq"})
"""State that is an average of squares."""

MOST_STEPS = 2**53
"""Step counts from this number on are taken for damage of a file."""

OPTIONAL = frozenset({"delta"})
"""State that may be missing, and that an optimizer without warm start also accepts."""


def check_loadable(
    param_groups: Sequence[Mapping[str, Any]],
    state_dict: Mapping[str, Any],
    state_keys: Callable[[Any], Sequence[str]] | None,
    check_group: Callable[[dict[str, Any]], None],
    kept_by_hooks: Set[str] = frozenset(),
) -> None:
    """Raise unless a state dict fits the players and the parameters of an optimizer.

    Groups that differ in number or size are left to ``torch.optim``, which raises an error. A
    parameter without state is treated as before its first step.

    Args:
        param_groups: the groups of the optimizer.
        state_dict: the state dict to load.
        state_keys: returns the names of the vectors that a player keeps; None to leave the check
            of state to the caller.
        check_group: raises unless the hyperparameters of a group are valid.
        kept_by_hooks: names of further vectors that the state may contain.

    Raises:
        TypeError, ValueError: if it does not fit, naming the entry.
    """
    missing = {"state", "param_groups"} - set(state_dict)
    if missing:
        raise ValueError(
            f"`state_dict` has no {' and no '.join(repr(key) for key in sorted(missing))}. Pass "
            "what `optimizer.state_dict()` returned."
        )
    groups = state_dict["param_groups"]
    is_whole = isinstance(state_dict["state"], Mapping) and isinstance(groups, list | tuple)
    if not is_whole or not all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list | tuple)
        for group in groups
    ):
        raise TypeError(
            "`state_dict` must have a dictionary as its `state`, and as its `param_groups` a list "
            "of dictionaries with `params`. Pass what `optimizer.state_dict()` returned."
        )
    if len(groups) != len(param_groups):
        return
    ours = [group["player"] for group in param_groups]
    theirs = [group.get("player") for group in groups]
    if ours != theirs:
        raise ValueError(
            f"The loaded groups belong to the players {theirs}, this optimizer's to {ours}. "
            "Build it with the same players in the same order."
        )
    known: set[Any] = set()
    for group, saved in zip(param_groups, groups, strict=True):
        ids = list(saved["params"])
        if len(known.union(ids)) < len(known) + len(ids):
            raise ValueError(
                "The loaded groups name the same parameter more than once. The state dict was not "
                "made by `optimizer.state_dict()`, or is damaged."
            )
        if len(group["params"]) != len(saved["params"]):
            return
        # Hyperparameters missing from the state dict keep their values.
        check_group({**group, **saved, "params": group["params"]})
        known.update(saved["params"])
        for param, index in zip(group["params"], saved["params"], strict=True):
            entry = state_dict["state"].get(index, {})
            if not isinstance(entry, Mapping):
                raise TypeError(
                    f"The loaded state of parameter {index} must be a dictionary, got {entry!r}."
                )
            if entry and state_keys is not None:
                keys = set(state_keys(group["player"]))
                _check_entry(index, param, entry, keys, OPTIONAL | kept_by_hooks)
    # Other keys are allowed: what other tools store in the state is passed through.
    unknown = [
        key
        for key, entry in state_dict["state"].items()
        if key not in known
        and (isinstance(key, int) or (isinstance(entry, Mapping) and "step" in entry))
    ]
    if unknown:
        raise ValueError(f"The loaded state has entries for no parameter: {unknown[:5]}.")


def _check_entry(
    index: Any, param: Tensor, entry: Mapping[str, Any], keys: set[str], optional: Set[str]
) -> None:
    missing = sorted(({"step"} | keys) - optional - set(entry))
    if missing:
        raise ValueError(
            f"The loaded state of parameter {index} lacks {missing}. It was saved by another "
            "optimizer, or is damaged."
        )
    extra = sorted(set(entry) - keys - optional - {"step"})
    if extra:
        raise ValueError(
            f"The loaded state of parameter {index} has {extra}, which this optimizer does not "
            "keep. Load it into one of the class that saved it, with the same hooks."
        )
    count = entry["step"]
    if isinstance(count, bool) or not isinstance(count, Tensor | int | float):
        raise TypeError(f"The loaded `step` of parameter {index} must be a number, got {count!r}.")
    if isinstance(count, Tensor) and (
        count.numel() != 1 or count.is_meta or count.is_complex() or count.dtype == torch.bool
    ):
        raise ValueError(
            f"The loaded `step` of parameter {index} must be a number, got shape "
            f"{tuple(count.shape)} and dtype {count.dtype}."
        )
    # Do not read a count on a device.
    if not isinstance(count, Tensor) or count.device.type == "cpu":
        value = math.inf if isinstance(count, int) and count >= MOST_STEPS else float(count)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(
                f"The loaded `step` of parameter {index} must be finite and not negative, got "
                f"{value!r}."
            )
    for key in set(entry) - {"step"}:
        _check_vector(key, index, param, entry[key])


def _check_vector(key: str, index: Any, param: Tensor, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"The loaded `{key}` of parameter {index} must be a tensor, got {type(value).__name__}."
        )
    # Sharded vectors are kept flat.
    if value.shape not in (param.shape, (param.numel(),)):
        raise ValueError(
            f"The loaded `{key}` of parameter {index} has shape {tuple(value.shape)}, "
            f"the parameter {tuple(param.shape)}. Build the optimizer with the same "
            "parameters in the same order."
        )
    if not value.is_floating_point():
        raise ValueError(
            f"The loaded `{key}` of parameter {index} must be of a real floating-point dtype, got "
            f"{value.dtype}."
        )
    if value.layout != torch.strided:
        raise ValueError(
            f"The loaded `{key}` of parameter {index} must be dense, got layout {value.layout}."
        )
    if value.device.type == "meta":
        return
    if not torch.isfinite(value).all():
        raise ValueError(
            f"The loaded `{key}` of parameter {index} holds NaN or Inf. It was saved after a "
            "failure, or is damaged: load an earlier one."
        )
    if key in NOT_NEGATIVE and (value < 0).any():
        raise ValueError(
            f"The loaded `{key}` of parameter {index} is an average of squares and must not be "
            f"negative, got {float(value.min())!r}. It was saved by another optimizer, or is "
            "damaged."
        )
