"""Competitive gradient descent for any number of players."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, overload

import torch
from torch import Tensor
from typing_extensions import Unpack

from compopt._checks import check_choice, check_iterable, check_loss
from compopt._typing import LearningRates, Params
from compopt.derivatives import Derivatives
from compopt.game import ManyPlayers
from compopt.optim.competitive import CompetitiveOptimizer, CompetitiveOptions
from compopt.optim.settings import scaled_to_strength
from compopt.optim.update import StepSizes, Update, joint_update
from compopt.solvers import GMRES, ConjugateGradient, Solver

Losses: TypeAlias = Sequence[Tensor]
LossesOrClosure: TypeAlias = Losses | Callable[[], Losses]
Penalties: TypeAlias = Sequence[Tensor | None]


class PolymatrixCGD(CompetitiveOptimizer[int]):
    r"""Competitive gradient descent for n players, each with its own loss.

    Each step plays the Nash equilibrium of the local game in which every pair of players interacts
    bilinearly:

    .. math:: \delta = -(I + A H_o)^{-1} A \xi

    with the players' own gradients :math:`\xi_i = \nabla_i L_i`, the blocks :math:`D_{ij} L_i`,
    :math:`i \ne j`, of :math:`H_o`, and the step sizes A: ``lr``, or with ``beta`` those of
    :class:`~compopt.ACGD`. Two players take the steps of CGD and ACGD.

    Args:
        params: for each player, what ``torch.optim`` accepts: tensors, named tensors or group
            dictionaries.
        lr: a number, a 0-dim tensor, or one of these for each player.
        beta: decay rate of the average of squared gradients; None for constant step sizes.
        eps: added to the root of that average.
        interaction: see :class:`~compopt.CGD`, as for all arguments that follow.
        weight_decay: decoupled.
        max_grad_norm: largest Euclidean norm of a group's gradient.
        mirror: the mirror map, or groups may have their own.
        solver: solver of the joint linear system; :class:`~compopt.GMRES` with defaults if None.
        warm_start: whether to start the solver from the last moves.
        on_failure: what to do when the solve fails.
        capturable: whether steps must read nothing on the host.
        backend: backend of the vector kernels.
        process_group: the processes that share each step.

    Attributes:
        last_step: the :class:`~compopt.StepReport` of the last step; raises AttributeError
            before the first.

    Cost: one backward pass for each loss, by all players' parameters, and for each product of the
    solver one backward pass per player.

    References:
        Ma, Letcher, Schäfer, Shi and Anandkumar (2021), Polymatrix competitive gradient descent.
        https://arxiv.org/abs/2111.08565
    """

    _options: ClassVar[tuple[str, ...]] = (*CompetitiveOptimizer._options, "_players")
    _beta_is_optional = True
    _how_to_step = "Call `step(losses)`, or `optimizer.backward(losses)` before `step()`."
    _how_to_scale = (
        "Give it unscaled: PolymatrixCGD takes no scaler. `torch.autocast(..., "
        "dtype=torch.bfloat16)` needs none."
    )
    _how_to_pass: ClassVar[Mapping[str, str]] = {
        "__init__": "Pass the players as one list, `[first_params, second_params, ...]`, a rate "
        "for each as `lr=[...]`, and other hyperparameters by name.",
        **dict.fromkeys(
            ("step", "backward"),
            "Pass the losses of all players as one list, `[first_loss, second_loss, ...]`, and "
            "penalties likewise, by name: `penalties=[...]`.",
        ),
    }

    def __init__(
        self,
        params: Sequence[Params],
        lr: LearningRates = 1e-3,
        *,
        beta: float | None = None,
        eps: float = 1e-5,
        **options: Unpack[CompetitiveOptions],
    ) -> None:
        groups = _tagged_groups(params)
        self._players = tuple(sorted({group["player"] for group in groups}))
        if isinstance(options.get("solver"), ConjugateGradient):
            raise TypeError(
                "`solver` must not be ConjugateGradient: with a loss for each player the linear "
                "system is not symmetric. Use GMRES()."
            )
        defaults = {"lr": lr, "beta": beta, "eps": eps}
        super().__init__(groups, None, defaults, **options)

    @overload  # type: ignore[override]
    def step(
        self,
        closure: LossesOrClosure,
        *,
        penalties: Penalties | None = ...,
        player: int | None = ...,
    ) -> list[Tensor]: ...

    @overload
    def step(self, closure: None = None) -> list[Tensor] | None: ...

    def step(
        self,
        closure: LossesOrClosure | None = None,
        *,
        penalties: Penalties | None = None,
        player: int | None = None,
    ) -> list[Tensor] | None:
        """Take one competitive step of all players, or a gradient step of one.

        Args:
            closure: a sequence of one scalar loss per player with its graph, or a function without
                arguments that returns it. None, passed or returned, takes the step that
                :meth:`backward` has prepared; if there is none, only missing state is created.
            penalties: for each player None or a scalar that it also minimises. They are
                differentiated once and never enter the products.
            player: the number of a player that moves alone, by a gradient step; see
                :meth:`CGD.step <compopt.CGD.step>`.

        Returns:
            The detached losses.

        Raises:
            StepError: if the step failed and ``on_failure="raise"``.
            TypeError, ValueError: if there is not one scalar with a graph for each player. Any
                error leaves parameters and state unchanged.
        """
        losses: list[Tensor] | None = self._step(closure, _as_terms(penalties), player)
        return losses

    def backward(
        self, closure: LossesOrClosure, *, penalties: Penalties | None = None
    ) -> list[Tensor]:
        """Put each player's own gradient into ``.grad`` and keep the graph for :meth:`step`.

        Args:
            closure: as in :meth:`step`.
            penalties: as in :meth:`step`.

        Returns:
            The detached losses. See :meth:`CGD.backward <compopt.CGD.backward>`.
        """
        losses: list[Tensor] = self._backward(closure, _as_terms(penalties))
        return losses

    def _result(self, losses: Sequence[Tensor]) -> list[Tensor]:
        return list(losses)

    def _as_game(
        self,
        closure: LossesOrClosure,
        terms: Penalties,
        player: int | None = None,
    ) -> ManyPlayers:
        if player is not None:
            check_choice("player", player, self._players)
        losses = closure
        if callable(losses) and not isinstance(losses, Tensor):
            with torch.enable_grad():
                losses = losses()
        if isinstance(losses, Tensor) or not isinstance(losses, list | tuple):
            remedy = "If a closure returned it, end that with `return losses`."
            if losses is not None:
                remedy = "A zero-sum game of two players is `[loss, -loss]`."
            kind = type(losses).__name__
            raise TypeError(
                f"`losses` must be a list of one loss for each player, got {kind}. {remedy}"
            )
        count = len(self._players)
        for name, given in (("losses", losses), ("penalties", terms)):
            if len(given) != count and (given or name == "losses"):
                raise ValueError(
                    f"`{name}` must have one entry for each of the {count} players, got "
                    f"{len(given)}."
                )
        if player is None:
            self._refuse_hooks()
        device = self._all_params()[0].device
        for index, loss in enumerate(losses):
            check_loss(f"losses[{index}]", loss, device)
        return ManyPlayers(losses, terms)

    def _report_independence(self, derivatives: Derivatives[int]) -> None:
        self._reporter.report_unrelated(derivatives)

    def _solver_for(self, derivatives: Derivatives[int]) -> Solver:
        return GMRES() if self.solver is None else self.solver

    def _solvable(self) -> tuple[int, ...]:
        return self._players

    def _solved(self) -> tuple[int, ...]:
        return self._players

    def _solve(
        self, derivatives: Derivatives[int], sizes: Mapping[int, StepSizes], solver: Solver | None
    ) -> Update[int]:
        previous: dict[int, Tensor] | None = None
        if self.warm_start:
            vectors = [self._vectors_of(player) for player in self._players]
            previous = {
                own.player: scaled_to_strength(own.segments, delta)
                for own in vectors
                if (delta := own.read("delta")) is not None
            }
        return joint_update(
            derivatives,
            sizes,
            solver,
            previous=previous if previous and len(previous) == len(self._players) else None,
            watches=self._reporter.watches and not self.capturable,
        )


def _as_terms(penalties: Penalties | None) -> tuple[Tensor | None, ...]:
    if isinstance(penalties, Tensor) or not isinstance(penalties, Sequence | None):
        raise TypeError(
            "`penalties` must be a list that has a scalar or None for each player, got "
            f"{type(penalties).__name__}."
        )
    return tuple(penalties or ())


def _tagged_groups(params: Sequence[Params]) -> list[dict[str, Any]]:
    """Return the groups of all players, each tagged with its player's number."""
    players = list(check_iterable("params", params))
    if players and all(isinstance(entry, dict) and "player" in entry for entry in players):
        return players
    groups = []
    for number, own in enumerate(players):
        entries = list(check_iterable(f"params[{number}]", own))
        if not entries:
            raise ValueError(f"`params[{number}]` is empty. Each player needs a parameter.")
        if not isinstance(entries[0], dict):
            entries = [{"params": entries}]
        groups += [{**entry, "player": number} for entry in entries]
    if len(players) < 2:
        raise ValueError(f"`params` must have at least two players, got {len(players)}.")
    return groups
