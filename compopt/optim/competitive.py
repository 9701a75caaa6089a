"""The competitive step as a torch optimizer, of any number of players."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor

from compopt._checks import check_choice
from compopt._typing import K, Params
from compopt.derivatives import Derivatives, differentiate
from compopt.distributed.meeting import Act
from compopt.kernels import resolve_backend, use_backend
from compopt.optim.adaptive import AdaptiveOptimizer
from compopt.optim.capture import check_capturable
from compopt.optim.commit import Commit
from compopt.optim.interaction import interacts, scale_to_learning_rate
from compopt.optim.judgement import judge, judge_alone, select
from compopt.optim.loss import evaluated
from compopt.optim.players import ProcessGroup
from compopt.optim.report import StepReport
from compopt.optim.step_sizes import StepSizes
from compopt.optim.trouble import OnFailure, check_solver, stretch_of
from compopt.optim.update import Update
from compopt.solvers import Solver


class CompetitiveOptimizer(AdaptiveOptimizer, Generic[K]):
    """Base of CGD and its kin: gradients, step sizes, solve, and the step if it is good.

    Subclasses say what game a loss is, and solve for the moves. The arguments are those of
    :class:`~compopt.CGD`.
    """

    _options: ClassVar[tuple[str, ...]] = (
        "capturable",
        "solver",
        "warm_start",
        "on_failure",
        "backend",
    )

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None,
        defaults: dict[str, Any],
        *,
        solver: Solver | None,
        warm_start: bool,
        on_failure: OnFailure,
        capturable: bool,
        backend: str,
        process_group: ProcessGroup,
    ) -> None:
        check_choice("on_failure", on_failure, ("fallback", "skip", "raise"))
        resolve_backend(backend)
        if solver is not None:
            check_solver(solver)
        self.solver: Solver | None = solver
        self.warm_start = bool(warm_start)
        self.on_failure: OnFailure = on_failure
        self.backend = backend
        if capturable:
            check_capturable(solver, on_failure)
        super().__init__(
            min_params, max_params, defaults, capturable=capturable, process_group=process_group
        )

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self.last_step: StepReport[K] | None = None

    def _state_keys(self, player: Any) -> tuple[str, ...]:
        kept = ("delta",) if self.warm_start and player in self._solvable() else ()
        return (*super()._state_keys(player), *kept)

    @abstractmethod
    def _report_independence(self, derivatives: Derivatives[K]) -> None:
        """Warn of losses that do not depend on other players."""

    @abstractmethod
    def _solver_for(self, derivatives: Derivatives[K]) -> Solver:
        """Return the solver of the linear system, the default one if none was given."""

    @abstractmethod
    def _solvable(self) -> tuple[K, ...]:
        """Return the players whose moves are solved for, at this or another step."""

    @abstractmethod
    def _solved(self) -> tuple[K, ...]:
        """Return the players whose moves are solved for at this step."""

    @abstractmethod
    def _solve(
        self, derivatives: Derivatives[K], step_sizes: Mapping[K, StepSizes], interacts: bool
    ) -> Update[K]:
        """Return the moves of all players."""

    def _step(self, closure: Any, terms: tuple[Any, ...], player: K | None = None) -> Any:
        """Take a step of all players, or of one; see :meth:`~compopt.CGD.step`."""
        with torch.no_grad(), use_backend(self.backend), self._together(closure):
            if player is not None:
                return self._step_alone(player, closure, terms)
            derivatives = self._derivatives(closure, terms)
            if derivatives is None:
                self._idle_step()
                return None
            self._report_independence(derivatives)
            self._trouble.report_without_gradient(derivatives)
            with self._stepping():
                grad_norm = self._clip(derivatives)
                step_sizes = self._set_up(derivatives)
                update = self._solve(derivatives, step_sizes, interacts(self.param_groups))
                for player, delta in update.delta.items():
                    scale_to_learning_rate(self._segments(player), delta, step_sizes[player].values)
                self._finish(update, derivatives, grad_norm, step_sizes)
            return self._result_of(derivatives)

    def _step_alone(self, player: K, closure: Any, terms: tuple[Any, ...]) -> Any:
        """Take the gradient step of ``player``; others' parameters and state stay."""
        if closure is None:
            raise TypeError(f"`step(loss, player={player!r})` needs a loss, got None.")
        # A prepared step would be one from where the player has been.
        self._tell_of_lost_step()
        self._pending = None
        game = self._as_game(closure, terms, player)
        params = self._params(player)
        self._look_at(str(player), game.of(player), player)
        self._meet(Act.STEP, game, player=player)
        derivatives = differentiate(
            game.of(player),
            {player: params},
            placement=self._placement,
            second_order=False,
        )
        self._clip_groups(player, derivatives.grads[player])
        self._to_local_coordinates(derivatives)
        grad = derivatives.grads[player]
        sizes = self._step_sizes(player, grad, None)
        self._placement.clear_padding(params, sizes.values)
        delta = sizes.plain_step(grad)
        scale_to_learning_rate(self._segments(player), delta)
        squares = self._is_adaptive(player)
        outcome = judge_alone(player, grad, delta, self._placement, squares_gradients=squares)
        advance: bool | Tensor = outcome.taken
        if not self.capturable:
            advance = bool(self._placement.agree(outcome.taken))
            self._trouble.report_alone(player, advance, outcome.failure, on_failure=self.on_failure)
        commit = Commit()
        if advance is not False:
            self._remember(commit, player, grad, advance)
            # Checkpoints have all of a player's state or none.
            for key in self._state_keys(player):
                self._stage_state(commit, player, key)
            self._stage(commit, player, delta, {}, advance)
        commit.run()
        # Losses of others are not differentiated, so they have not been averaged.
        losses = [
            derivatives.losses[0]
            if player in objective.signs
            else self._placement.mean(objective.loss.detach())
            for objective in game.objectives()
        ]
        return losses[0] if len(losses) == 1 else self._result(losses)

    def _derivatives(self, closure: Any, terms: tuple[Any, ...]) -> Derivatives[K] | None:
        closure = evaluated(closure, lambda: self._pending is not None)
        if closure is None:
            self._check_prepared()
        else:
            self._tell_of_lost_step()
        pending, self._pending = self._pending, None
        params = {player: self._params(player) for player in self._players}
        if closure is not None:
            game = self._as_game(closure, terms)
            self._look_at("step", game)
            self._meet(Act.STEP, game)
            return self._differentiate(game, params, workspace=self._workspace)
        if any(term is not None for term in terms):
            raise ValueError("These terms go with the loss: pass them to `backward` in this form.")
        if pending is None:
            return None
        self._meet(Act.PREPARED_STEP)
        pending.grads = {
            player: self._placement.part(tensors, [param.grad for param in tensors])
            for player, tensors in params.items()
        }
        return pending

    def _clip(self, derivatives: Derivatives[K]) -> dict[K, Tensor]:
        """Clip each group's gradient to its ``max_grad_norm``; return the norms before."""
        norms = self._placement.norms(derivatives.grads, of_any_size=self.capturable)
        for player, grad in derivatives.grads.items():
            self._clip_groups(player, grad)
        self._to_local_coordinates(derivatives)
        return norms

    def _set_up(self, derivatives: Derivatives[K]) -> dict[K, StepSizes]:
        solved = self._solved()
        step_sizes = {
            player: self._step_sizes(
                player, grad, derivatives.signs[player] if player in solved else None
            )
            for player, grad in derivatives.grads.items()
        }
        for player, sizes in step_sizes.items():
            vectors = (sizes.values, sizes.root, sizes.weighed_grad)
            self._placement.clear_padding(self._params(player), *vectors)
        return step_sizes

    def _finish(
        self,
        update: Update[K],
        derivatives: Derivatives[K],
        grad_norm: dict[K, Tensor],
        step_sizes: Mapping[K, StepSizes],
    ) -> None:
        """Judge the step, record it, and take it, its fallback, or nothing."""
        grads = derivatives.grads
        plain = {p: partial(step_sizes[p].plain_step, grad) for p, grad in grads.items()}
        verdict = judge(
            update,
            derivatives,
            grad_norm,
            self._placement,
            reads=not self.capturable,
            falls_back=self.on_failure == "fallback",
            squared=[player for player in self._players if self._is_adaptive(player)],
            is_clipped=any(group["max_grad_norm"] is not None for group in self.param_groups),
            signs={} if self.capturable else self._trouble.signs(update),
        )
        self.last_step, use_solution = verdict.report, verdict.use_solution
        advance = verdict.advance
        if verdict.status is not None:
            self._trouble.report(
                verdict.status,
                verdict.use_solution is True,
                verdict.signs,
                self._solver_for(derivatives),
                verdict.report,
                on_failure=self.on_failure,
                failure=verdict.report.failure,
                stretch=lambda: stretch_of(update.delta.values(), (p() for p in plain.values())),
            )
        deltas = {p: select(use_solution, update.delta[p], plain[p]) for p in plain}
        if use_solution is not True:
            # The plain step can overflow as well.
            norms = self._placement.norms(deltas, of_any_size=True)
            finite = torch.isfinite(torch.stack([*norms.values()])).all()
            advance = advance & (finite if self.capturable else bool(self._placement.agree(finite)))
        if advance is False:
            return
        commit = Commit()
        for player, delta in deltas.items():
            self._remember(commit, player, grads[player], advance)
            state = {"delta": delta} if "delta" in self._state_keys(player) else {}
            self._stage(commit, player, delta, state, advance)
        commit.run()
