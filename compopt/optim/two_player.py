"""The competitive step of two players."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from typing_extensions import Unpack

from compopt._checks import check_choice
from compopt._typing import PLAYERS, Params, Player
from compopt.derivatives import Derivatives
from compopt.game import (
    Game,
    L_co,
    Losses,
    LossOrClosure,
    Penalties,
    Terms,
    as_game,
    as_loss,
    check_alone,
)
from compopt.optim.competitive import CompetitiveOptimizer, CompetitiveOptions
from compopt.optim.reporter import SolveFor
from compopt.optim.settings import scaled_to_strength
from compopt.optim.update import StepSizes, Update, competitive_update
from compopt.solvers import GMRES, ConjugateGradient, Solver


class TwoPlayerOptions(CompetitiveOptions, total=False):
    """Keywords of CGD and ACGD."""

    solve_for: SolveFor


class StepTerms(Penalties, total=False):
    """Keywords of a step."""

    curvature_loss: Tensor | None
    player: Player | None


class TwoPlayerCompetitive(CompetitiveOptimizer[Player]):
    """Base of CGD and ACGD. The arguments are those of :class:`~compopt.CGD`."""

    _options: ClassVar[tuple[str, ...]] = (*CompetitiveOptimizer._options, "solve_for")

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None,
        defaults: dict[str, Any],
        *,
        solve_for: SolveFor = "smaller",
        **options: Unpack[CompetitiveOptions],
    ) -> None:
        check_choice("solve_for", solve_for, ("min", "max", "alternate", "smaller"))
        if options.get("capturable") and solve_for == "alternate":
            raise ValueError('`capturable` forbids `solve_for="alternate"`: steps must be alike.')
        self.solve_for: SolveFor = solve_for
        super().__init__(min_params, max_params, defaults, **options)

    @overload  # type: ignore[override]
    def step(self, closure: LossOrClosure[L_co], **terms: Unpack[StepTerms]) -> L_co: ...

    @overload
    def step(self, closure: None = None) -> Losses | None: ...

    def step(
        self,
        closure: LossOrClosure | None = None,
        *,
        min_penalty: Tensor | None = None,
        max_penalty: Tensor | None = None,
        curvature_loss: Tensor | None = None,
        player: Player | None = None,
    ) -> Losses | None:
        """Take one competitive step of both players, or a gradient step of one.

        Args:
            closure: the scalar loss with its graph, or a pair (min, max) of losses, where each
                player minimises its own, or a :class:`~compopt.Game`, or
                :class:`~compopt.MicroBatches` of these, which are averaged; or a function without
                arguments that returns one of these and does not call ``backward()``. None, passed
                or returned, takes the step that :meth:`backward` has prepared; if there is none,
                only missing state is created.
            min_penalty: scalar that the min player also minimises. It is differentiated once
                and never enters the mixed products.
            max_penalty: scalar that the max player also *minimises*.
            curvature_loss: a loss whose mixed second derivatives replace those of the loss, such as
                the loss of a part of the batch, from a separate forward pass. Products cost in
                proportion to it; gradients are those of the loss.
            player: "min" or "max" moves this player alone, by the gradient step with the same step
                sizes, averages and counts, as for several steps of a critic. The loss need not
                depend on the other player (``fake.detach()``); one backward pass. A prepared step
                is dropped, and ``last_step`` still reports the last step of both players.

        Returns:
            The detached loss, or pair of losses.

        Raises:
            StepError: if the step failed and ``on_failure="raise"``.
            TypeError, ValueError: if the loss is not a scalar with a graph. Any error leaves
                parameters and state unchanged.
        """
        terms = Terms(min_penalty, max_penalty, curvature_loss)
        loss: Losses | None = self._step(closure, terms, player)
        return loss

    def backward(
        self,
        closure: LossOrClosure[L_co],
        *,
        min_penalty: Tensor | None = None,
        max_penalty: Tensor | None = None,
        curvature_loss: Tensor | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> L_co:
        """Put each player's own gradient into ``.grad`` and keep the graph for :meth:`step`.

        The max player's own objective is the negative loss. Clip, log or unscale the gradients as
        usual, then call ``step()`` without arguments; it solves with the gradients in ``.grad``.

        Args:
            closure: as in :meth:`step`.
            min_penalty: as in :meth:`step`.
            max_penalty: as in :meth:`step`.
            curvature_loss: as in :meth:`step`.
            scaler: scales the loss against underflow in half precision. Pass the unscaled loss,
                then call ``scaler.step(optimizer)`` and ``scaler.update()`` as usual. A loss
                scaled by hand raises an error: it would scale the mixed products as well.

        Returns:
            The detached loss. Existing ``.grad`` is replaced, not added to: pass micro-batches in
            one call, as :class:`~compopt.MicroBatches`. A step that was prepared before and never
            taken is lost, with a StepWarning the first time; ``zero_grad()`` drops it without one.
        """
        terms = Terms(min_penalty, max_penalty, curvature_loss)
        loss: L_co = self._backward(closure, terms, scaler)
        return loss

    def _as_game(self, closure: LossOrClosure, terms: Terms, player: Player | None = None) -> Game:
        if player is not None:
            check_choice("player", player, PLAYERS)
            check_alone(player, terms)
            device = self._params(player)[0].device
            return as_game(closure, terms, device, allows_pair=True, players=self._parts_of())
        # Refuse pairs here: the error of ConjugateGradient would not mention the losses.
        pairs = not isinstance(self.solver, ConjugateGradient)
        game = as_game(
            closure,
            terms,
            self._params("min")[0].device,
            allows_pair=pairs,
            allows_curvature=True,
            players=self._parts_of(),
        )
        self._refuse_hooks()
        return game

    def _result(self, losses: Sequence[Tensor]) -> Losses:
        return as_loss(losses)

    def _report_independence(self, derivatives: Derivatives[Player]) -> None:
        self._reporter.report_independence(derivatives)

    def _solver_for(self, derivatives: Derivatives[Player]) -> Solver:
        if self.solver is not None:
            return self.solver
        method = ConjugateGradient if derivatives.is_zero_sum else GMRES
        return method(rtol=self._default_rtol())

    def _default_rtol(self) -> float:
        return 1e-2

    def _solvable(self) -> tuple[Player, ...]:
        """Return the players whose moves are solved for, at this or another step."""
        if self.solve_for == "alternate":
            return PLAYERS
        if self.solve_for == "smaller":
            return (
                ("min",)
                if self._vectors_of("min").size < self._vectors_of("max").size
                else ("max",)
            )
        return (self.solve_for,)

    def _solved(self) -> tuple[Player, ...]:
        # The published code begins with the maximising player. The count comes from the state, so
        # that a resumed run alternates as if it had not stopped.
        players = self._solvable()
        return players[:1] if len(players) == 1 or self._num_steps() % 2 else players[1:]

    def _solve(
        self,
        derivatives: Derivatives[Player],
        sizes: Mapping[Player, StepSizes],
        solver: Solver | None,
    ) -> Update[Player]:
        # The player whose step sizes have roots.
        (solved,) = (player for player, own in sizes.items() if own.root is not None)
        vectors = self._vectors_of(solved)
        previous = vectors.read("delta") if self.warm_start else None
        if previous is not None:
            previous = scaled_to_strength(vectors.segments, previous)
        return competitive_update(
            derivatives,
            sizes,
            solver,
            player=solved,
            previous_delta=previous,
            watches=self._reporter.watches and not self.capturable,
            may_read=not self.capturable,
            workspace=self._workspace,
        )
