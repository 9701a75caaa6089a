"""The tensors that a compiled step reads and writes, located once and read in each step."""

import operator
from typing import Any

import torch
from torch import Tensor

from compopt._flat import FlatLayout
from compopt._typing import PLAYERS, Player
from compopt.compiled.checks import check_owned
from compopt.compiled.program import LossModule
from compopt.compiled.twin import StateKey
from compopt.optim.two_player import TwoPlayerCompetitive

_Slot = tuple[dict[str, Any], str]
"""A dictionary of a module and a key: the place of a tensor that may be replaced."""


class BoundTensors:
    """The parameters of an optimizer, their state, and the other tensors of its networks.

    Attributes:
        by_player: the trainable parameters of each player.
        params: the trainable parameters of both players, in order.
        names: the names of ``params`` in the networks.
    """

    def __init__(self, optimizer: TwoPlayerCompetitive, module: LossModule) -> None:
        self._optimizer = optimizer
        self._given = optimizer._all_params()
        self._trained = [param.requires_grad for param in self._given]
        self.by_player: dict[Player, list[Tensor]] = {p: optimizer._params(p) for p in PLAYERS}
        self.params = [param for params in self.by_player.values() for param in params]
        self._modules = list(module.modules())
        names: dict[Tensor, str] = {param: name for name, param in module.named_parameters()}
        check_owned(names, self.by_player)
        self.names = [names.pop(param) for param in self.params]
        buffers = [name for name, _ in module.named_buffers()]
        self._own = [_slot(module, name, "_parameters") for name in self.names]
        self._others = {name: _slot(module, name, "_parameters") for name in names.values()}
        self._others |= {name: _slot(module, name, "_buffers") for name in buffers}
        self._layouts = {p: FlatLayout.of(params) for p, params in self.by_player.items()}

    def are_current(self) -> bool:
        """Return True if optimizer and networks hold the same parameters, trainable as before."""
        given = self._optimizer._all_params()
        return (
            len(given) == len(self._given)
            and all(map(operator.is_, given, self._given))
            and [param.requires_grad for param in given] == self._trained
            and all(
                values[key] is param
                for (values, key), param in zip(self._own, self.params, strict=True)
            )
        )

    def are_training(self) -> list[bool]:
        """Return the training flag of each module."""
        return [module.training for module in self._modules]

    def others(self) -> dict[str, Tensor]:
        """Return the buffers and the other parameters of the networks, by name."""
        return {name: values[key] for name, (values, key) in self._others.items()}

    def steps(self) -> list[Tensor | None]:
        """Return the step count in the state of each of :attr:`params`, None without one."""
        state = self._optimizer.state
        # The state is a defaultdict: indexing would create an entry.
        return [state[param].get("step") if param in state else None for param in self.params]

    def counts(self) -> list[float]:
        """Return the number of steps taken by each of :attr:`params`."""
        return [0.0 if step is None else step.item() for step in self.steps()]

    def vectors(self) -> dict[StateKey, Tensor]:
        """Return the state vectors, zeros where there are none."""
        optimizer, found = self._optimizer, {}
        for player in self.by_player:
            vectors = optimizer._vectors_of(player)
            for key in optimizer._state_keys(player):
                vector = vectors.read(key)
                if vector is None:
                    layout = self._layouts[player]
                    vector = torch.zeros(layout.numel, dtype=layout.dtype, device=layout.device)
                found[player, key] = vector
        return found


def _slot(module: LossModule, name: str, kind: str) -> _Slot:
    owner, _, key = name.rpartition(".")
    return getattr(module.get_submodule(owner), kind), key
