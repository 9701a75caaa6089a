"""The competitive step as a torch optimizer, of any number of players."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic

import torch
from torch import Tensor
from typing_extensions import TypedDict

from compopt._checks import check_choice
from compopt._profiling import Range, profiled
from compopt._typing import K, Params
from compopt.derivatives import Derivatives
from compopt.distributed.meeting import Act
from compopt.game import evaluated
from compopt.kernels import resolve_backend, use_backend
from compopt.optim.adaptive import AdaptiveOptimizer, Mirrors
from compopt.optim.capture import check_capturable
from compopt.optim.judgement import judge, judge_alone, select
from compopt.optim.players import ProcessGroup
from compopt.optim.report import StepReport
from compopt.optim.reporter import OnFailure, check_solver, stretch_of
from compopt.optim.settings import Settings, scale_to_learning_rate
from compopt.optim.update import StepSizes, Update
from compopt.optim.vectors import PlayerVectors
from compopt.solvers import Solver, Status


class CompetitiveOptions(TypedDict, total=False):
    """Keywords of competitive optimizers."""

    interaction: float | None
    weight_decay: float
    max_grad_norm: float | None
    mirror: Mirrors
    solver: Solver | None
    warm_start: bool
    on_failure: OnFailure
    capturable: bool
    backend: str
    process_group: ProcessGroup


class CompetitiveOptimizer(AdaptiveOptimizer, Generic[K]):
    """Base of CGD, ACGD and PolymatrixCGD: gradients, step sizes, solve, commit of a good step.

    Subclasses turn losses into a game and solve for the moves. The arguments are those of
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
        interaction: float | None = None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        mirror: Mirrors = "euclidean",
        solver: Solver | None = None,
        warm_start: bool = False,
        on_failure: OnFailure = "fallback",
        capturable: bool = False,
        backend: str = "auto",
        process_group: ProcessGroup = None,
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
        defaults = {
            **defaults,
            "interaction": interaction,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
            "mirror": mirror,
        }
        super().__init__(
            min_params, max_params, defaults, capturable=capturable, process_group=process_group
        )

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._last_step: StepReport[K] | None = None

    @property
    def last_step(self) -> StepReport[K]:
        """The report of the last step; raises AttributeError before the first."""
        if self._last_step is None:
            raise AttributeError("`last_step` is about the last step, but none has been taken yet.")
        return self._last_step

    @last_step.setter
    def last_step(self, report: StepReport[K]) -> None:
        self._last_step = report

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
        self, derivatives: Derivatives[K], sizes: Mapping[K, StepSizes], solver: Solver | None
    ) -> Update[K]:
        """Return the moves of all players, or their gradient steps if ``solver`` is None."""

    def _step(self, closure: Any, terms: tuple[Any, ...], player: K | None = None) -> Any:
        """Take a step of all players, or of one; see :meth:`~compopt.CGD.step`."""
        backend, device = self.backend, self.param_groups[0]["params"][0].device
        if backend == "auto" and device.type != "cuda":
            # Resolve the backend once, not in each kernel.
            backend = "torch"
        with torch.no_grad(), use_backend(backend), self._together(closure):
            if player is not None:
                return self._step_alone(player, closure, terms)
            loss = evaluated(closure, lambda: self._pending is not None)
            settings = Settings.of(self.param_groups)
            with self._stepping() as vectors:
                if loss is None:
                    derivatives = self._prepared(terms)
                    if derivatives is None:
                        self._idle_step()
                        return None
                else:
                    if self._pending is not None:
                        self._drop_prepared()
                    game = self._as_game(loss, terms)
                    self._check_call("step", game)
                    self._meet(Act.STEP, game)
                    derivatives = self._differentiate(
                        game, second_order=settings.interacts, workspace=self._workspace
                    )
                if self._reporter.watches or not derivatives.is_zero_sum:
                    self._report_independence(derivatives)
                    self._reporter.report_without_gradient(derivatives)
                grad_norm = self._clip(derivatives, settings)
                with profiled(Range.SET_UP):
                    step_sizes = self._set_up(derivatives, vectors, self._solved())
                solver = self._solver_for(derivatives)
                with profiled(Range.SOLVE):
                    update = self._solve(
                        derivatives, step_sizes, solver if settings.interacts else None
                    )
                if settings.is_rescaled:
                    for each, delta in update.delta.items():
                        sizes = step_sizes[each].values
                        scale_to_learning_rate(vectors[each].segments, delta, sizes)
                self._finish(
                    update, derivatives, grad_norm, step_sizes, solver, vectors, settings.clips
                )
            return self._result(derivatives.losses)

    def _step_alone(self, player: K, closure: Any, terms: tuple[Any, ...]) -> Any:
        """Take the gradient step of ``player``, without changing the other players."""
        if closure is None:
            raise TypeError(f"`step(loss, player={player!r})` needs a loss, got None.")
        # A prepared step would be one from where the player has been.
        self._drop_prepared()
        game = self._as_game(closure, terms, player)
        vectors = self._vectors_of(player)
        self._check_call(str(player), game.of(player), player)
        self._meet(Act.STEP, game, player=player)
        # They are looked for in two calls only: leave those to steps of all players.
        derivatives = self._differentiate(game.of(player), [player], looks_for_old_parts=False)
        self._clip_groups(player, derivatives.grads[player])
        self._to_local_coordinates(derivatives)
        grad = derivatives.grads[player]
        sizes = self._step_sizes(vectors, grad, None)
        self._placement.clear_padding(vectors.params, sizes.values)
        delta = sizes.plain_step(grad)
        scale_to_learning_rate(vectors.segments, delta)
        outcome = judge_alone(
            player, grad, delta, self._placement, squares_gradients=sizes.are_adaptive
        )
        advance: bool | Tensor = outcome.taken
        if not self.capturable:
            advance = bool(self._placement.agree(outcome.taken))
            self._reporter.report_alone(
                player, advance, outcome.failure, on_failure=self.on_failure
            )
        commit = self._commit(advance)
        if advance is not False:
            if sizes.are_adaptive:
                self._stage_averages(commit, vectors, grad, advance)
            # Create all state vectors: checkpoints have all of a player's state or none.
            for key in self._state_keys(player):
                vectors.stage(commit, key)
            vectors.stage_step(commit, delta, advance, charts=self._charts)
        commit.run()
        # Only the loss that was differentiated has been averaged over processes.
        losses = [
            derivatives.losses[0]
            if player in objective.signs
            else self._placement.mean(objective.loss.detach())
            for objective in game.objectives()
        ]
        return self._result(losses)

    def _clip(self, derivatives: Derivatives[K], settings: Settings) -> dict[K, Tensor]:
        """Clip gradients, then switch them to local coordinates; return the norms before both."""
        norms = self._placement.norms(derivatives.grads, of_any_size=self.capturable)
        if settings.clips:
            for player, grad in derivatives.grads.items():
                self._clip_groups(player, grad)
        if settings.has_mirrors or self._charts:
            self._to_local_coordinates(derivatives)
        return norms

    def _finish(
        self,
        update: Update[K],
        derivatives: Derivatives[K],
        grad_norm: dict[K, Tensor],
        step_sizes: Mapping[K, StepSizes],
        solver: Solver,
        vectors: Mapping[K, PlayerVectors],
        is_clipped: bool,
    ) -> None:
        """Judge the step, record it, and take it, its fallback, or nothing."""
        grads = derivatives.grads
        is_doubtful = self._reporter.watches or not update.is_zero_sum
        is_doubtful = is_doubtful and not self.capturable
        is_fixed = getattr(solver, "has_fixed_count", False)
        verdict = judge(
            update,
            derivatives,
            grad_norm,
            self._placement,
            reads=not self.capturable,
            falls_back=self.on_failure == "fallback",
            squared=[player for player, sizes in step_sizes.items() if sizes.are_adaptive],
            is_clipped=is_clipped,
            signs=self._reporter.signs(update) if is_doubtful else {},
        )
        self._last_step, use_solution = verdict.report, verdict.use_solution
        advance = verdict.advance
        is_unsolved = verdict.status not in (None, Status.CONVERGED) and not is_fixed
        if verdict.status is not None and (is_doubtful or is_unsolved or not use_solution):
            self._reporter.report(
                verdict.status,
                verdict.use_solution is True,
                verdict.signs,
                solver,
                verdict.report,
                on_failure=self.on_failure,
                failure=verdict.report.failure,
                stretch=lambda: stretch_of(
                    update.delta.values(), [step_sizes[p].plain_step(grads[p]) for p in grads]
                ),
            )
        # In the order of the players, in which state is created.
        deltas = {player: update.delta[player] for player in grads}
        if use_solution is not True:
            deltas = {
                player: select(use_solution, deltas[player], step_sizes[player].plain_step(grad))
                for player, grad in grads.items()
            }
            # The plain step can overflow as well.
            norms = self._placement.norms(deltas, of_any_size=True)
            finite = torch.isfinite(torch.stack([*norms.values()])).all()
            advance = advance & (finite if self.capturable else bool(self._placement.agree(finite)))
        if advance is False:
            return
        with profiled(Range.UPDATE):
            commit = self._commit(advance)
            kept = self._solvable() if self.warm_start else ()
            for player, delta in deltas.items():
                own = vectors[player]
                if step_sizes[player].are_adaptive:
                    self._stage_averages(commit, own, grads[player], advance)
                state = {"delta": delta} if player in kept else {}
                own.stage_step(commit, delta, advance, state, self._charts)
            commit.run()
