"""The competitive step as a torch optimizer."""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compopt._checks import check_choice, check_hooks, check_non_negative
from compopt._typing import PLAYERS, Params, Player
from compopt.distributed.meeting import Act
from compopt.game import Game
from compopt.kernels import resolve_backend, use_backend
from compopt.optim.alone import check_terms, judge_alone, own_gradient
from compopt.optim.capture import check_capturable
from compopt.optim.commit import Advance, Commit
from compopt.optim.interaction import interacts, scale_to_learning_rate, scaled_to_strength
from compopt.optim.judgement import judge
from compopt.optim.loss import LossOrClosure, Terms, as_game, evaluated
from compopt.optim.players import ProcessGroup, select
from compopt.optim.report import StepReport
from compopt.optim.step_sizes import StepSizes
from compopt.optim.trouble import OnFailure, SolveFor, check_solver, stretch_of
from compopt.optim.two_phase import TwoPhaseOptimizer
from compopt.optim.update import Gradients, Update, by_player, competitive_update, sign_of
from compopt.solvers import ConjugateGradient, Solver


class CompetitiveOptimizer(TwoPhaseOptimizer):
    """Base of CGD and its kin: everything but the step sizes.

    Subclasses give ``_step_sizes`` and check their own hyperparameters. The arguments are those of
    :class:`~compopt.CGD`.
    """

    _options = ("capturable", "solver", "warm_start", "solve_for", "on_failure", "backend")

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None,
        defaults: dict[str, Any],
        *,
        solver: Solver | None,
        warm_start: bool,
        solve_for: SolveFor,
        on_failure: OnFailure,
        capturable: bool,
        backend: str,
        process_group: ProcessGroup = None,
    ) -> None:
        check_choice("solve_for", solve_for, ("min", "max", "alternate", "smaller"))
        check_choice("on_failure", on_failure, ("fallback", "skip", "raise"))
        resolve_backend(backend)
        self.solver: Solver = ConjugateGradient() if solver is None else solver
        check_solver(self.solver)
        self.warm_start = bool(warm_start)
        self.solve_for: SolveFor = solve_for
        self.on_failure: OnFailure = on_failure
        self.backend = backend
        if capturable:
            check_capturable(self.solver, on_failure, solve_for)
        super().__init__(
            min_params, max_params, defaults, capturable=capturable, process_group=process_group
        )

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self.last_step: StepReport | None = None

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        if group["interaction"] is not None:
            check_non_negative("interaction", group["interaction"])

    def _state_keys(self, player: Player) -> tuple[str, ...]:
        return ("delta",) if self.warm_start and player in self._solvable() else ()

    @abstractmethod
    def _step_sizes(self, player: Player, grad: Tensor, sign: int | None) -> StepSizes:
        """Return the step sizes of ``player``.

        Args:
            player: whose they are.
            grad: [size of the player] of its own objective. Not modified.
            sign: that the right-hand side has, None if the player's move is not solved for.
        """

    def _remember(self, commit: Commit, player: Player, grad: Tensor, advance: Advance) -> None:
        """Add to a commit the state that step sizes come from, where the step is taken."""

    def step(  # type: ignore[override]
        self,
        closure: LossOrClosure | None = None,
        *,
        min_penalty: Tensor | None = None,
        max_penalty: Tensor | None = None,
        curvature_loss: Tensor | None = None,
        player: Player | None = None,
    ) -> Tensor | tuple[Tensor, Tensor] | None:
        """Take one competitive step of both players, or a gradient step of one.

        Args:
            closure: the scalar loss with its graph, or a pair (min, max) of losses of which each
                player minimises its own (needs ``solver=GMRES()``), or a :class:`~compopt.Game`, or
                :class:`~compopt.MicroBatches` of these, which are averaged; or a function without
                arguments that returns one of these and does not call ``backward()``. None, given
                or returned, takes the step that :meth:`backward` has prepared, and changes nothing
                if there is none.
            min_penalty: scalar that the min player also minimises. It is differentiated once
                and never enters the mixed products.
            max_penalty: scalar that the max player also *minimises*.
            curvature_loss: a loss whose mixed second derivatives are taken for those of the loss,
                such as that of a part of the batch, from a forward pass of its own. Products cost
                in proportion to it; gradients are those of the loss.
            player: "min" or "max" moves this player alone, by the gradient step with the same step
                sizes, averages and counts, as for several steps of a critic. The loss need not
                depend on the other player (``fake.detach()``); one backward pass. A prepared step
                is dropped, and ``last_step`` stays that of both players' last step.

        Returns:
            The detached loss, or pair of losses.

        Raises:
            StepError: if the step failed and ``on_failure="raise"``.
            TypeError, ValueError: if the loss is not a scalar with a graph. After any error
                parameters and state are as before.
        """
        with torch.no_grad(), use_backend(self.backend), self._together(closure):
            terms = Terms(min_penalty, max_penalty, curvature_loss)
            if player is not None:
                return self._step_alone(player, closure, terms)
            gradients = self._gradients(closure, terms)
            if gradients is None:
                self._idle_step()
                return None
            params = {player: self._params(player) for player in PLAYERS}
            self._trouble.report_independence(gradients)
            self._trouble.report_without_gradient(gradients, params)
            gradients, grad_norm = self._clip(gradients)
            solved = self._solved_player()
            step_sizes = self._set_up(gradients, solved)
            update = self._solve(gradients, step_sizes, solved)
            for player, delta in update.delta.items():
                scale_to_learning_rate(self._segments(player), delta, step_sizes[player].values)
            self._finish(update, gradients, grad_norm, step_sizes)
            return gradients.losses()

    def _step_alone(
        self, player: Player, closure: LossOrClosure | None, terms: Terms
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Take the gradient step of ``player``; the other's parameters and state stay."""
        check_choice("player", player, PLAYERS)
        check_terms(player, terms)
        if closure is None:
            raise TypeError(f'`step(loss, player="{player}")` needs a loss, got None.')
        # A prepared step would be one from where the player has been.
        self._tell_of_lost_step()
        self._pending = None
        params = self._params(player)
        game = as_game(closure, terms, params[0].device, allows_pair=True)
        self._check_unscaled(player, game.terms())
        self._meet(Act.STEP, game, player=player)
        grad = own_gradient(game, player, params, self._placement)
        self._clip_groups(player, grad)
        sizes = self._step_sizes(player, grad, None)
        self._placement.clear_padding(params, sizes.values)
        delta = sizes.plain_step(grad)
        scale_to_learning_rate(self._segments(player), delta)
        squares = "exp_avg_sq" in self._state_keys(player)
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
        loss = game.detached_loss()
        mean = self._placement.mean
        return (mean(loss[0]), mean(loss[1])) if isinstance(loss, tuple) else mean(loss)

    def _as_game(self, call: str, closure: LossOrClosure, terms: Terms) -> Game:
        # Conjugate gradients would refuse the operator, without a word about the losses.
        pairs = not isinstance(self.solver, ConjugateGradient)
        params = [*self._params("min"), *self._params("max")]
        check_hooks(params)
        device = params[0].device
        game = as_game(closure, terms, device, allows_pair=pairs, allows_curvature=True)
        self._check_unscaled(call, game.terms())
        return game

    def _gradients(self, closure: LossOrClosure | None, terms: Terms) -> Gradients | None:
        closure = evaluated(closure, lambda: self._pending is not None)
        if closure is None:
            self._check_prepared()
        else:
            self._tell_of_lost_step()
        pending, self._pending = self._pending, None
        params = {player: self._params(player) for player in PLAYERS}
        if closure is not None:
            game = self._as_game("step", closure, terms)
            self._meet(Act.STEP, game)
            keeps, room = interacts(self.param_groups), self._workspace
            return self._placement.differentiate(game, params, second_order=keeps, workspace=room)
        if any(term is not None for term in terms):
            raise ValueError("These terms go with the loss: pass them to `backward` in this form.")
        if pending is None:
            return None
        self._meet(Act.PREPARED_STEP)
        grad_min, grad_max = (
            self._placement.part(params[player], [param.grad for param in params[player]])
            for player in PLAYERS
        )
        return dataclasses.replace(pending, grad_min=grad_min, grad_max=grad_max)

    def _clip(self, gradients: Gradients) -> tuple[Gradients, dict[Player, Tensor]]:
        """Clip each group's gradient to its ``max_grad_norm``; return the norms before."""
        grads = by_player(gradients)
        norms = self._placement.norms(grads, of_any_size=self.capturable)
        for player, grad in grads.items():
            self._clip_groups(player, grad)
        return gradients, norms

    def _solvable(self) -> tuple[Player, ...]:
        """Return the players whose moves are solved for, at this or another step."""
        if self.solve_for == "alternate":
            return PLAYERS
        if self.solve_for == "smaller":
            sizes = {p: sum(param.numel() for param in self._params(p)) for p in PLAYERS}
            return ("min",) if sizes["min"] < sizes["max"] else ("max",)
        return (self.solve_for,)

    def _solved_player(self) -> Player:
        """Return the player whose move this step solves for."""
        # The published code begins with the maximising player. Counting from the state makes a
        # resumed run alternate as if it had not stopped.
        players = self._solvable()
        return players[0] if len(players) == 1 or self._num_steps() % 2 else players[1]

    def _set_up(self, gradients: Gradients, solved: Player) -> dict[Player, StepSizes]:
        sign = sign_of(gradients, solved)
        step_sizes = {
            player: self._step_sizes(player, grad, sign if player == solved else None)
            for player, grad in by_player(gradients).items()
        }
        for player, sizes in step_sizes.items():
            vectors = (sizes.values, sizes.root, sizes.weighed_grad)
            self._placement.clear_padding(self._params(player), *vectors)
        return step_sizes

    def _solve(
        self,
        gradients: Gradients,
        step_sizes: Mapping[Player, StepSizes],
        solved: Player,
    ) -> Update:
        previous = self._read_state(solved, "delta") if self.warm_start else None
        if previous is not None:
            previous = scaled_to_strength(self._segments(solved), previous)
        return competitive_update(
            gradients,
            step_sizes,
            self.solver,
            player=solved,
            previous_delta=previous,
            interacts=interacts(self.param_groups),
            watches=self._trouble.watches and not self.capturable,
            workspace=self._workspace,
        )

    def _finish(
        self,
        update: Update,
        gradients: Gradients,
        grad_norm: dict[Player, Tensor],
        step_sizes: Mapping[Player, StepSizes],
    ) -> None:
        """Judge the step, record it, and take it, its fallback, or nothing."""
        grads = by_player(gradients)
        plain = {p: partial(step_sizes[p].plain_step, grads[p]) for p in PLAYERS}
        verdict = judge(
            update,
            gradients,
            grad_norm,
            self._placement,
            reads=not self.capturable,
            falls_back=self.on_failure == "fallback",
            squares_gradients="exp_avg_sq" in self._state_keys("min"),
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
                self.solver,
                verdict.report,
                on_failure=self.on_failure,
                failure=verdict.report.failure,
                stretch=lambda: stretch_of(update.delta.values(), (plain[p]() for p in PLAYERS)),
            )
        deltas = {p: select(use_solution, update.delta[p], plain[p]) for p in PLAYERS}
        if use_solution is not True:
            # The plain step can overflow as well.
            norms = self._placement.norms(deltas, of_any_size=True)
            finite = torch.isfinite(torch.stack([*norms.values()])).all()
            advance = advance & (finite if self.capturable else bool(self._placement.agree(finite)))
        if advance is False:
            return
        commit = Commit()
        for player in PLAYERS:
            self._remember(commit, player, grads[player], advance)
            state = {"delta": deltas[player]} if "delta" in self._state_keys(player) else {}
            self._stage(commit, player, deltas[player], state, advance)
        commit.run()
