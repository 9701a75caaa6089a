"""Steps of an optimizer: its vectors, what a step writes, and the processes that share it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compopt._checks import check_hooks
from compopt._flat import Workspace
from compopt.derivatives import Derivatives, differentiate
from compopt.distributed import Placement, placement_of
from compopt.distributed.meeting import Act, Terms
from compopt.game import AnyGame
from compopt.optim.capture import warn_of_fixed_rates
from compopt.optim.commit import Advance, Commit, stage_moves
from compopt.optim.mirrors import Chart
from compopt.optim.plan import Plan, Segment
from compopt.optim.players import ProcessGroup, TwoPlayerOptimizer
from compopt.optim.report import StepError
from compopt.optim.reporter import check_shardable
from compopt.optim.state import STEP, drop_removed
from compopt.optim.terms import plain, terms_of


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

    def _plan(self, player: Any) -> Plan:
        if self._is_stepping:
            return self._plans[player]
        plan = self._plans.get(player)
        if plan is None or not plan.is_current(self.param_groups, player):
            plan = self._plans[player] = Plan.of(self.param_groups, player, self._placement)
        return plan

    @contextmanager
    def _stepping(self) -> Iterator[dict[Any, Plan]]:
        """Cache plans, segments and state vectors for the rest of a step, once the loss is known.

        Yields the plans of all players.
        """
        plans = {player: self._plan(player) for player in self._players}
        for plan in plans.values():
            plan.segments = None
        try:
            self._is_stepping = True
            self._flat_state.seen = {}
            yield plans
        finally:
            self._is_stepping = False
            self._flat_state.seen = None

    def _entries(self, player: Any) -> list[tuple[Tensor, dict[str, Any]]]:
        return self._plan(player).entries

    def _params(self, player: Any) -> list[Tensor]:
        return self._plan(player).params

    def _segments(self, player: Any) -> Sequence[Segment]:
        return self._segments_of(self._plan(player))

    def _segments_of(self, plan: Plan) -> Sequence[Segment]:
        if plan.segments is None or not self._is_stepping:
            counts: Sequence[Any]
            if self.capturable:
                counts = [self.state.get(param, {}).get(STEP) for param in plan.params]
                if any(count is None for count in counts):
                    zero = torch.zeros((), device=plan.layout.device)
                    counts = [zero if count is None else count for count in counts]
            else:
                counts = self._flat_state.counts(self.state, plan.player, plan.params)
            plan.segments = plan.segments_of(counts)
        return plan.segments

    def _read_state(self, player: Any, key: str) -> Tensor | None:
        """Return a state vector [size of the player], None if there is none.

        It may be the stored one: modify it only to update the state.
        """
        return self._flat_state.read(self.state, player, self._params(player), key)

    def _stage_state(self, commit: Commit, player: Any, key: str) -> Tensor:
        """Return a state vector [size of the player] for later writes of ``commit`` to change."""
        return self._flat_state.stage(commit, self.state, player, self._params(player), key)

    def _clip_groups(self, player: Any, grad: Tensor) -> None:
        """Clip each group's part of ``grad`` [size of the player] to its ``max_grad_norm``."""
        # By group, not by segment: a group may have parameters with different step counts.
        for group, where, _ in self._plan(player).parts:
            if group["max_grad_norm"] is not None:
                norm = self._placement.norms({player: grad[where]}, of_any_size=True)[player]
                grad[where].mul_((group["max_grad_norm"] / (norm + 1e-6)).clamp(max=1.0))

    def _num_steps(self) -> float:
        """Return the number of steps of all players so far. Reads counts: not if capturable."""
        return min(
            max(float(segment.num_steps) for segment in self._segments(player))
            for player in self._players
        )

    def _stage(
        self,
        commit: Commit,
        plan: Plan,
        delta: Tensor,
        state: Mapping[str, Tensor],
        advance: Advance,
    ) -> None:
        """Add to a commit: decay, move by ``delta``, store ``state``, count the step.

        Args:
            commit: the commit to add to.
            plan: the plan of the player.
            delta: [size of the player] the move.
            state: vectors [size of the player] by key.
            advance: whether the step is taken.
        """
        if self.capturable:
            warn_of_fixed_rates(plan.entries)
        views = self._placement.whole(plan.params, plan.layout, delta)
        for group, _, which in plan.parts:
            params, moves = plan.params[which], views[which]
            # All parameters of a group have the same mirror map.
            if self._charts and params[0] in self._charts:
                for param, move in zip(params, moves, strict=True):
                    moved = self._charts[param].moved(move).to(param.dtype)
                    commit.copy(param, moved if advance is True else moved.where(advance, param))
                continue
            decay = group["weight_decay"]
            factor = 1 - group["lr"] * decay if decay else None
            stage_moves(commit, params, moves, factor, advance)
        for key, vector in state.items():
            stored = self._stage_state(commit, plan.player, key)
            if stored is not vector:
                commit.copy(stored, vector if advance is True else vector.where(advance, stored))
        self._stage_counts(commit, plan.player, advance, plan.params)
        commit.add(partial(setattr, self, "_is_taken", advance))

    def _stage_counts(
        self,
        commit: Commit,
        player: Any,
        advance: Advance | None,
        params: Sequence[Tensor] | None = None,
    ) -> None:
        """Add the increment of step counts to a commit; see :class:`FlatState`."""
        params = self._params(player) if params is None else params
        if self._flat_state.stage_counts(
            commit, self.state, player, params, advance, on_device=self.capturable
        ):
            # A new parameter may have replaced another.
            commit.add(partial(drop_removed, self.state, self.param_groups))

    def _refuse_gradients(self) -> None:
        """Raise if a ``.grad`` is not zero: a step without a loss would ignore it."""
        if any(bool(param.grad.any()) for param in self._all_params() if param.grad is not None):
            raise RuntimeError(
                "`step()` found gradients but no graph: `loss.backward()` frees what a step of "
                f"{type(self).__name__} needs. {self._how_to_step}"
            )

    def _check_call(self, call: str, game: AnyGame[Any], *players: Any) -> None:
        """Check a call by ``players``, including their hooks, or by all, without hooks."""
        found = [param for player in players or self._players for param in self._params(player)]
        self._call_checks.check(call, game, found, self._how_to_scale, hooks=bool(players))

    def _differentiate(
        self,
        game: AnyGame[Any],
        players: Sequence[Any] | None = None,
        *,
        second_order: bool = False,
        scale: float = 1.0,
        workspace: Workspace | None = None,
    ) -> Derivatives[Any]:
        """Return the derivatives of a game by the parameters of some players, all if None."""
        plans = {player: self._plan(player) for player in players or self._players}
        derivatives = differentiate(
            game,
            {player: plan.params for player, plan in plans.items()},
            placement=self._placement,
            scale=scale,
            second_order=second_order,
            workspace=workspace,
            layouts={player: plan.layout for player, plan in plans.items()},
        )
        self._look_for_old_parts(game)
        return derivatives

    def _look_for_old_parts(self, game: AnyGame[Any]) -> None:
        """Warn if a part of a differentiated game is older than the last step."""
        if self._call_checks.looks_for_old_parts:
            found = [p for player in self._players for p in self._params(player)]
            self._call_checks.look_for_old_parts(game, found)

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
            for key in self._state_keys(player):
                self._stage_state(commit, player, key)
            self._stage_counts(commit, player, None)
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
