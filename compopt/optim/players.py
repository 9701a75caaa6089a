"""A torch optimizer over two players: their groups, their state, its checkpoints."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor
from torch import distributed as dist

from compopt._arguments import HOW_TO_PASS, ExplainsArguments
from compopt._checks import check_trainable
from compopt._flat import Workspace
from compopt._typing import PLAYERS, Params
from compopt.distributed import Placement
from compopt.optim.call_checks import CallChecks
from compopt.optim.commit import Advance
from compopt.optim.groups import (
    check_hyperparameters,
    check_keys,
    complete_group,
    player_groups,
    player_lr,
)
from compopt.optim.loading import check_loadable
from compopt.optim.state import drop_removed, kept_whole, restore_state, unshare_state
from compopt.optim.vectors import PlayerVectors

ProcessGroup: TypeAlias = "dist.ProcessGroup | Placement | None"


class TwoPlayerOptimizer(ExplainsArguments, torch.optim.Optimizer):
    """Base of the optimizers of two players. Subclasses implement ``step``.

    Each parameter group has a ``player``. State is stored per parameter and updated as one flat
    vector per player. A parameter is skipped as long as it does not require grad.

    Args:
        min_params: parameters of the player that minimises the loss, or the tagged groups of both.
        max_params: parameters of the player that maximises it; None if the first argument has both.
        defaults: default hyperparameters of a group.
        capturable: whether steps must read nothing on the host, as device graphs require.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Attributes:
        state_keys_of_hooks: names of vectors that hooks add to the state of a parameter. A state
            dict may contain them.
    """

    _knows_its_state: ClassVar[bool] = True
    """Whether all state, except that of hooks, belongs to this optimizer."""

    _options: ClassVar[tuple[str, ...]] = ("capturable",)
    """Attributes that copies and pickles keep, in addition to the groups."""

    _players: tuple[Any, ...] = PLAYERS
    """What players are called, in order."""

    _placement: Placement = Placement()
    """Where the players' vectors live."""

    _how_to_step: ClassVar[str] = "Call `step(loss)`."
    """What to do instead of calling ``step()`` after ``loss.backward()``."""

    _how_to_scale: ClassVar[str] = (
        "Give it unscaled: this optimizer takes no scaler. `torch.autocast(..., "
        "dtype=torch.bfloat16)` needs none."
    )
    """What to do instead of ``scaler.scale(loss)``."""

    _how_to_pass: ClassVar[Mapping[str, str]] = HOW_TO_PASS

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None,
        defaults: dict[str, Any],
        *,
        capturable: bool,
        process_group: ProcessGroup = None,
    ) -> None:
        self.capturable = bool(capturable)
        self._placement = self._place(process_group)
        self._reset_transient()
        for player in self._players:
            self._check_group({**self._defaults_of(player, defaults), "player": player})
        super().__init__(player_groups(min_params, max_params), defaults)
        for player in self._players:
            if not any(group["player"] == player for group in self.param_groups):
                raise ValueError(f'No parameter group has `player` = "{player}".')
            check_trainable(player, self.param_groups)

    @property
    def process_group(self) -> Placement:
        """How processes share a step. Set it to a process group after unpickling."""
        return self._placement

    @process_group.setter
    def process_group(self, process_group: ProcessGroup) -> None:
        self._placement = self._place(process_group)
        self._reset_transient()

    @abstractmethod
    def _place(self, process_group: ProcessGroup) -> Placement:
        """Return the placement of the vectors of a step."""

    def _reset_transient(self) -> None:
        """Set the attributes that are neither copied nor pickled."""
        self._workspace = Workspace()
        # Like hooks, kept when a state dict is loaded, and not copied.
        self.state_keys_of_hooks: set[str] = getattr(self, "state_keys_of_hooks", set())
        self._vectors: dict[Any, PlayerVectors] = {}
        self._is_stepping = False
        self._call_checks = CallChecks()
        # Whether the last step was taken, for hooks that reset it before a step.
        self._is_taken: Advance | Literal[False] = False

    @abstractmethod
    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        """Raise unless the algorithm's own hyperparameters in ``group`` are valid."""

    @abstractmethod
    def _state_keys(self, player: Any) -> tuple[str, ...]:
        """Return the names of the state vectors that ``player`` keeps in addition to ``step``."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to a player: as in ``torch.optim``, with ``player`` in the group."""
        group = complete_group(
            param_group,
            self.param_groups,
            partial(self._defaults_of, defaults=self.defaults),
            self._players,
        )
        self._check_group(group)
        super().add_param_group(group)

    def _defaults_of(self, player: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of a player's groups, from one value or one for each player."""
        return {**defaults, "lr": player_lr(player, defaults["lr"], self._players)}

    def _check_group(self, group: dict[str, Any]) -> None:
        # Also called for the defaults themselves, before they are set.
        check_keys(type(self).__name__, group, getattr(self, "defaults", group))
        check_hyperparameters(group)
        self._check_hyperparameters(group)

    def _all_params(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """Return the state dict, without the state of parameters that are in no group any more."""
        drop_removed(self.state, self.param_groups)
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict as ``torch.optim`` does, keeping the precision of saved vectors.

        Hyperparameters missing from its groups keep their values.

        Raises:
            TypeError, ValueError: if the groups belong to other players, groups or tensors differ
                in size, or entries are missing, unknown or not valid. The optimizer is then
                unchanged.
        """
        loaded: list[dict[str, Any]] = []

        def check(_: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
            keys = self._state_keys if self._knows_its_state else None
            hooks = self.state_keys_of_hooks
            check_loadable(self.param_groups, state_dict, keys, self._check_group, hooks)
            loaded.append(state_dict)

        # Keep hyperparameters that did not exist when the state dict was saved.
        present = [{**group} for group in self.param_groups]

        def restore(_: torch.optim.Optimizer) -> None:
            for group, kept in zip(self.param_groups, present, strict=True):
                for key, value in kept.items():
                    group.setdefault(key, value)
            if not self._knows_its_state:
                unshare_state(self.state)
                return
            restore_state(self.state, self._all_params(), loaded[0], capturable=self.capturable)

        # As the last pre-hook, `check` sees the state dict as other hooks changed it; as the first
        # post-hook, `restore` leaves the loaded state to other hooks.
        handles = [
            self.register_load_state_dict_pre_hook(check),
            self.register_load_state_dict_post_hook(restore, prepend=True),
        ]
        try:
            with kept_whole(self):
                super().load_state_dict(state_dict)
        finally:
            for handle in handles:
                handle.remove()

    def __getstate__(self) -> dict[str, Any]:
        options = {name: getattr(self, name) for name in self._options}
        return {**super().__getstate__(), **options, "_placement": self._placement}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # The base class adds a default that the constructors here do not take.
        self.defaults.pop("differentiable", None)
        self._reset_transient()
