"""Players given as modules or as parameters, with the qualified names of both."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from compopt._checks import check_one_device, check_params
from compopt._typing import PLAYERS, Player

PlayerLike: TypeAlias = (
    nn.Module | Iterable[nn.Module] | Iterable[Tensor] | Iterable[tuple[str, Tensor]]
)
"""A module, several modules, parameters, or named parameters."""


@dataclass(frozen=True)
class Players:
    """Trainable parameters of two players, and qualified names of parameters and modules.

    Attributes:
        params: each player's parameters that require grad.
        names: qualified names of those parameters.
        arguments: each player's argument name, followed by the class if it is a module.
        modules: qualified name of every given module and submodule.
    """

    params: Mapping[Player, list[Tensor]]
    names: Mapping[Player, list[str]]
    arguments: Mapping[Player, str]
    modules: Mapping[nn.Module, str]

    @property
    def device(self) -> torch.device:
        """Device of all parameters."""
        return self.params["min"][0].device

    def label(self, module: nn.Module) -> str:
        """Return the qualified name and the class of ``module``."""
        return f"{self.modules[module]} ({type(module).__name__})"


def players_of(arguments: Mapping[str, PlayerLike], modules: Iterable[nn.Module] = ()) -> Players:
    """Return the players given as ``arguments``, the min player first.

    Args:
        arguments: the players by the names that error messages use.
        modules: further modules. They only provide names.

    Raises:
        TypeError, ValueError: if a player is neither modules nor parameters, has no trainable
            parameter, or shares a parameter with the other.
    """
    items = {name: _items(name, player) for name, player in arguments.items()}
    roots = {**_roots(items), **_indexed("modules", list(modules))}
    module_names: dict[nn.Module, str] = {}
    param_names: dict[int, str] = {}
    for root_name, root in roots.items():
        for name, module in root.named_modules():
            module_names.setdefault(module, f"{root_name}.{name}" if name else root_name)
        for name, param in root.named_parameters():
            param_names.setdefault(id(param), f"{root_name}.{name}")
    params: dict[Player, list[Tensor]] = {}
    names: dict[Player, list[str]] = {}
    for player, (argument, entries) in zip(PLAYERS, items.items(), strict=True):
        named = _trainable(argument, entries)
        params[player] = [param for _, param in named]
        names[player] = [param_names.get(id(param), name) for name, param in named]
    shared = len({id(p) for p in params["min"]} & {id(p) for p in params["max"]})
    if shared:
        listed = " and ".join(f"`{name}`" for name in items)
        raise ValueError(f"{listed} must be disjoint; {shared} parameters appear in both.")
    check_one_device("` and `".join(items), [*params["min"], *params["max"]])
    labels = [
        f"{name} ({type(player).__name__})" if isinstance(player, nn.Module) else name
        for name, player in arguments.items()
    ]
    return Players(params, names, dict(zip(PLAYERS, labels, strict=True)), module_names)


def _items(name: str, player: PlayerLike) -> list[nn.Module | Tensor | tuple[str, Tensor]]:
    if isinstance(player, nn.Module):
        return [player]
    if isinstance(player, Tensor) or not isinstance(player, Iterable):
        raise TypeError(
            f"`{name}` must be a module, modules, or an iterable of parameters, "
            f"got {type(player).__name__}."
        )
    return list(player)


def _indexed(name: str, modules: list[nn.Module]) -> dict[str, nn.Module]:
    for module in modules:
        if not isinstance(module, nn.Module):
            raise TypeError(f"`{name}` must hold modules, got {type(module).__name__}.")
    return {f"{name}[{index}]": module for index, module in enumerate(modules)}


def _roots(
    items: Mapping[str, list[nn.Module | Tensor | tuple[str, Tensor]]],
) -> dict[str, nn.Module]:
    """Return the modules among the players' items, by name."""
    return {
        name if len(entries) == 1 else f"{name}[{index}]": entry
        for name, entries in items.items()
        for index, entry in enumerate(entries)
        if isinstance(entry, nn.Module)
    }


def _trainable(
    argument: str, entries: list[nn.Module | Tensor | tuple[str, Tensor]]
) -> list[tuple[str, Tensor]]:
    """Return a player's named parameters that require grad, without duplicates."""
    named: list[tuple[str, Tensor]] = []
    for index, entry in enumerate(entries):
        if isinstance(entry, nn.Module):
            named += entry.named_parameters()
        elif isinstance(entry, tuple):
            named.append(entry)
        else:
            named.append((f"{argument}[{index}]", entry))
    unique = list({id(param): (name, param) for name, param in named}.values())
    check_params(argument, [param for _, param in unique])
    trainable = [(name, param) for name, param in unique if param.requires_grad]
    if not trainable:
        raise ValueError(f"`{argument}` must have a parameter that requires grad; all are frozen.")
    return trainable
