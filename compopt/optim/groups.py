"""Parameter groups that belong to a player."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compopt._arguments import HINTS
from compopt._checks import (
    check_choice,
    check_iterable,
    check_non_negative,
    check_one_device,
    check_params,
    check_positive,
)
from compopt._remedies import called
from compopt._typing import PLAYERS, Params


def player_groups(min_params: Params, max_params: Params | None) -> list[dict[str, Any]]:
    """Return the group dictionaries of both players, each tagged with its ``player``.

    If ``max_params`` is None, ``min_params`` must be the tagged groups of both players, as when a
    wrapper rebuilds an optimizer from its ``param_groups``.
    """
    if max_params is None:
        groups = list(check_iterable("min_params", min_params))
        if not groups or not all(isinstance(group, dict) and "player" in group for group in groups):
            raise TypeError(
                "`max_params` is missing. Pass both players' parameters, or one list of group "
                'dictionaries that each have `player` = "min" or "max".'
            )
        return groups
    return [*_groups_of("min", min_params), *_groups_of("max", max_params)]


def _groups_of(player: Any, params: Params) -> list[dict[str, Any]]:
    name = f"{player}_params"
    entries = list(check_iterable(name, params))
    if not entries:
        raise ValueError(
            f"`{name}` is empty. Each player needs at least one parameter. A generator such as "
            "`module.parameters()` can be read only once: call it again."
        )
    if not isinstance(entries[0], dict):
        return [{"params": entries, "player": player}]
    for entry in entries:
        if not isinstance(entry, dict):
            raise TypeError(f"`{name}` mixes group dictionaries and {type(entry).__name__}.")
        if entry.get("player", player) != player:
            raise ValueError(f"A group in `{name}` has `player` = {entry['player']!r}.")
    return [{**entry, "player": player} for entry in entries]


def complete_group(
    param_group: dict[str, Any],
    present: Sequence[dict[str, Any]],
    defaults_of: Callable[[Any], Mapping[str, Any]],
    players: Sequence[Any] = PLAYERS,
) -> dict[str, Any]:
    """Check the parameters of ``param_group``; return a copy with the defaults filled in."""
    if not isinstance(param_group, dict):
        raise TypeError(f"`param_group` must be a dictionary, got {type(param_group).__name__}.")
    group = dict(param_group)
    if "player" not in group:
        raise ValueError('`param_group` must have `player` = "min" or "max".')
    check_choice("player", group["player"], players)
    if "params" not in group:
        raise ValueError("`param_group` must have `params`, the parameters of the group.")
    params = group["params"]
    entries: list[Any] = [params] if isinstance(params, Tensor) else list(params)
    # Keep sets: the base class raises an error for them, as they have no order.
    group["params"] = params if isinstance(params, Tensor | set) else entries
    tensors = [
        entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry for entry in entries
    ]
    player = group["player"]
    check_params(f"{player}_params" if isinstance(player, str) else f"params[{player}]", tensors)
    others = [param for other in present for param in other["params"]]
    check_one_device("min_params and max_params", [*others, *tensors])
    taken = {id(param): other["player"] for other in present for param in other["params"]}
    shared = sum(taken.get(id(tensor), group["player"]) != group["player"] for tensor in tensors)
    if shared:
        both = "`min_params` and `max_params`" if players == PLAYERS else "Players' parameters"
        raise ValueError(f"{both} must be disjoint; {shared} parameters appear in both.")
    for key, value in defaults_of(group["player"]).items():
        group.setdefault(key, value)
    return group


def check_hyperparameters(group: dict[str, Any]) -> None:
    """Raise unless the hyperparameters common to all algorithms are valid in ``group``."""
    check_direction(group)
    check_non_negative("weight_decay", group["weight_decay"])
    if group["max_grad_norm"] is not None:
        check_positive("max_grad_norm", group["max_grad_norm"])


def check_direction(group: dict[str, Any]) -> None:
    """Raise if a negative ``lr`` or ``maximize`` would reverse the direction of a player."""
    player = group["player"]
    rates = "The max player maximizes the loss already: give both players positive rates."
    remedy = (
        "The max player maximizes the loss already: pass the parameters that should maximize it "
        "as `max_params`."
    )
    if not isinstance(player, str):
        rates = remedy = (
            "Each player minimizes a loss of its own: to maximize a quantity, give its negative as "
            "the loss."
        )
    check_non_negative("lr", group["lr"], allow_tensor=True, remedy=rates)
    if group.get("maximize"):
        raise ValueError(
            f"`maximize` must not be set in a group of {called(player)}, got "
            f"{group['maximize']!r}. {remedy}"
        )


MISSPELT = 0.85
"""Similarity, by :mod:`difflib`, from which a key is taken for a misspelt hyperparameter."""

# Hyperparameters of some optimizer: to ignore one silently would look like accepting it.
_OF_OTHERS = frozenset(
    [
        "beta",
        "betas",
        "eps",
        "interaction",
        "mirror",
        "max_grad_norm",
        "weight_decay",
        "momentum",
        "dampening",
        "nesterov",
        "amsgrad",
        "coefficient",
        "coupling",
    ]
)
_OF_THE_WHOLE = frozenset(
    [
        "solver",
        "warm_start",
        "solve_for",
        "on_failure",
        "capturable",
        "backend",
        "process_group",
        "align",
        "anticipate",
        "optimizer",
        "first",
    ]
)


def check_keys(optimizer: str, group: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise if a group has a hyperparameter that this optimizer does not take from groups.

    Keys that no optimizer knows are allowed, unless they look like a misspelt hyperparameter.

    Args:
        optimizer: the name of the optimizer.
        group: the parameter group.
        defaults: default hyperparameters of the optimizer's groups.
    """
    for key in group:
        if key in _OF_THE_WHOLE and key not in defaults:
            raise ValueError(
                f"A group of {optimizer} takes no `{key}`: it is set for all parameters at once, "
                f"as an argument, by optimizers that have it."
            )
        # A value of None sets nothing.
        if key in _OF_OTHERS and key not in defaults and group[key] is not None:
            hint = HINTS.get(key, f"There are {', '.join(defaults)}.")
            raise ValueError(f"A group of {optimizer} takes no `{key}`. {hint}")
    check_spelling(optimizer, group, defaults)


def check_spelling(optimizer: str, group: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise if a key of a group is a misspelt hyperparameter; see :func:`check_keys`."""
    known = {*defaults, "maximize"}
    for key in group:
        close = difflib.get_close_matches(str(key).lower(), known, n=1, cutoff=MISSPELT)
        if key not in known and close:
            raise ValueError(
                f"A group of {optimizer} takes no `{key}`. Did you mean `{close[0]}`? Give an "
                "entry of your own another name."
            )


def player_lr(player: Any, lr: Any, players: Sequence[Any] = PLAYERS) -> Any:
    """Return the player's learning rate from one rate or one for each of ``players``.

    A tensor is cloned: schedulers write to it in place, once for each group.
    """
    if isinstance(lr, Sequence) and not isinstance(lr, str):
        if len(lr) != len(players):
            each = "a pair (min, max)" if players == PLAYERS else f"one for {len(players)} players"
            raise ValueError(f"`lr` must be one rate or {each}, got {lr!r}.")
        lr = lr[players.index(player)]
    return lr.clone() if isinstance(lr, torch.Tensor) else lr
