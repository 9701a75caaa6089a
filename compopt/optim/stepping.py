"""Steps of an optimizer: its vectors, what a step writes, and the processes that share it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

from torch import Tensor

from compopt._checks import check_hooks
from compopt._flat import Workspace
from compopt.derivatives import Derivatives, differentiate
from compopt.distributed import Placement, placement_of
from compopt.distributed.meeting import Act, Terms
from compopt.game import AnyGame
from compopt.optim.commit import Advance, Commit
from compopt.optim.mirrors import Chart
from compopt.optim.players import ProcessGroup, TwoPlayerOptimizer
from compopt.optim.report import StepError
from compopt.optim.reporter import check_shardable
from compopt.optim.terms import plain, terms_of
from compopt.optim.vectors import PlayerVectors


class SteppingOptimizer(TwoPlayerOptimizer):
    """Base of the optimizers that take steps, on one process or shared by several.

    The processes must make the same calls with the same settings. This is checked before a call
    communicates. Parameters and state are compared the first time, and the first time after a state
    dict was loaded.
    """

    _pending: object | None = None
    _charts: Mapping[Tensor, Chart] = {}

    def _place(self, process_group: ProcessGroup) -> Placement:
        placement = placement_of(process_group)
        if placement.is_sharded:
            check_shardable(getattr(self, "solver", None))
        return placement

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._num_calls = 0
        self._has_met = False

    def _vectors_of(self, player: Any) -> PlayerVectors:
        vectors = self._vectors.get(player)
        if self._is_stepping and vectors is not None:
            return vectors
        if (
            vectors is None
            or vectors.on_device != self.capturable
            or not vectors.are_current(self.param_groups, self.state)
        ):
            vectors = self._vectors[player] = self._make_vectors(player)
        return vectors

    def _make_vectors(self, player: Any) -> PlayerVectors:
        groups, state, placement = self.param_groups, self.state, self._placement
        return PlayerVectors(player, groups, state, placement, on_device=self.capturable)

    @contextmanager
    def _stepping(self) -> Iterator[dict[Any, PlayerVectors]]:
        """Keep what is looked up for the rest of a step, once the loss is known.

        Yields the vectors of all players.
        """
        vectors = {player: self._vectors_of(player) for player in self._players}
        try:
            self._is_stepping = True
            for own in vectors.values():
                own.begin_step()
            yield vectors
        finally:
            self._is_stepping = False
            for own in vectors.values():
                own.end_step()

    def _params(self, player: Any) -> list[Tensor]:
        return self._vectors_of(player).params

    def _clip_groups(self, player: Any, grad: Tensor) -> None:
        """Clip each group's part of ``grad`` [size of the player] to its ``max_grad_norm``."""
        # By group, not by segment: a group may have parameters with different step counts.
        for where, group, _ in self._vectors_of(player).parts:
            if group["max_grad_norm"] is not None:
                norm = self._placement.norms({player: grad[where]}, of_any_size=True)[player]
                grad[where].mul_((group["max_grad_norm"] / (norm + 1e-6)).clamp(max=1.0))

    def _num_steps(self) -> float:
        """Return the number of steps of all players so far. Reads counts: not if capturable."""
        return min(
            max(float(segment.num_steps) for segment in self._vectors_of(player).segments)
            for player in self._players
        )

    def _commit(self, advance: Advance | Literal[False]) -> Commit:
        """Return a commit that so far only records whether the step is taken."""
        commit = Commit()
        if advance is not False:
            commit.add(partial(setattr, self, "_is_taken", advance))
        return commit

    def _refuse_gradients(self) -> None:
        """Raise if a ``.grad`` is not zero: a step without a loss would ignore it."""
        if any(bool(param.grad.any()) for param in self._all_params() if param.grad is not None):
            raise RuntimeError(
                "`step()` found gradients but no graph: `loss.backward()` frees what a step of "
                f"{type(self).__name__} needs. {self._how_to_step}"
            )

    def _check_call(self, call: str, game: AnyGame[Any], *players: Any) -> None:
        """Check a call, including the hooks of ``players``."""
        found = [param for player in players for param in self._params(player)]
        self._call_checks.check(call, game, self._how_to_scale, found)

    def _differentiate(
        self,
        game: AnyGame[Any],
        players: Sequence[Any] | None = None,
        *,
        second_order: bool = False,
        scale: float = 1.0,
        workspace: Workspace | None = None,
        looks_for_old_parts: bool = True,
    ) -> Derivatives[Any]:
        """Return the derivatives of a game by the parameters of some players, all if None."""
        vectors = {player: self._vectors_of(player) for player in players or self._players}
        derivatives = differentiate(
            game,
            {player: own.params for player, own in vectors.items()},
            placement=self._placement,
            scale=scale,
            second_order=second_order,
            workspace=workspace,
            layouts={player: own.layout for player, own in vectors.items()},
        )
        if looks_for_old_parts and self._call_checks.looks_for_old_parts:
            found = [param for player in self._players for param in self._params(player)]
            self._call_checks.look_for_old_parts(game, found)
        return derivatives

    def _check_groups(self) -> None:
        """Raise if a value set in a group since the last call is not valid."""
        self._call_checks.check_groups(self.param_groups, self._check_group)

    def _refuse_hooks(self) -> None:
        """Raise if a parameter has a hook: products would run it too."""
        check_hooks([param for player in self._players for param in self._params(player)])

    def _parts_of(self) -> Mapping[Any, Sequence[Tensor]] | None:
        """Return the players' parameters to compare micro-batches by; None after the first ones."""
        if self._call_checks.know_parts:
            return None
        # Include frozen parameters: a player may be fully frozen while another moves alone.
        parts: dict[Any, list[Tensor]] = {player: [] for player in self._players}
        for group in self.param_groups:
            parts[group["player"]] += group["params"]
        return parts

    def _idle_step(self) -> None:
        """Create the state, as checkpoint loaders expect of a step without a loss."""
        self._refuse_gradients()
        commit = Commit()
        for player in self._players:
            vectors = self._vectors_of(player)
            for key in self._state_keys(player):
                vectors.stage(commit, key)
            vectors.stage_counts(commit, None)
        commit.run()

    def _together(self, closure: object) -> AbstractContextManager[None]:
        """Return the context of a call with this ``closure``, which processes make together."""
        # Count before the loss is computed, to detect a rank that fails there and continues. Do not
        # count a call that only creates state: one rank may make it alone, to save a checkpoint.
        self._num_calls += closure is not None or self._pending is not None
        if self._placement.is_shared:
            return self._shared_call()
        self._check_groups()
        return _ALONE

    @contextmanager
    def _shared_call(self) -> Iterator[None]:
        with self._placement.together(StepError):
            self._check_groups()
            yield

    def _further_settings(self) -> dict[str, str]:
        """Return further settings that must be equal on all processes, as texts by name."""
        return {}

    def _meet(
        self,
        act: Act,
        game: AnyGame[Any] | None = None,
        scale: float = 1.0,
        player: Any | None = None,
    ) -> None:
        """Begin a call of all processes; raise on all of them if their calls or settings differ.

        Args:
            act: the kind of call.
            game: the game of this process; None if it was differentiated before.
            scale: the scale of the loss.
            player: the player that moves alone; None if all move.
        """
        if not self._placement.is_shared:
            return

        def terms() -> Terms:
            settings = {f"`{name}`": plain(getattr(self, name)) for name in self._options}
            settings["`player`"] = plain(player)
            settings |= self._further_settings()
            if game is not None:
                losses = [str(objective.loss.dtype) for objective in game.objectives()]
                settings |= {**self._placement.settings(), "the losses": ", ".join(losses)}
                settings["scale of the loss"] = plain(scale)
            state = None if self._has_met else self.state
            keys = ("player", *self.defaults)
            return terms_of(self.param_groups, keys, settings, state, self._state_keys)

        # A device graph cannot read a message: with `capturable`, only the first call compares.
        is_silent = self.capturable and self._has_met
        device = self.param_groups[0]["params"][0].device
        self._placement.meet(act, self._num_calls, None if is_silent else terms, device)
        self._has_met = True


_ALONE: AbstractContextManager[None] = nullcontext()
