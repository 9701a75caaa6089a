"""Competitive gradient descent of any number of players."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from compopt._checks import (
    check_decay_rate,
    check_hooks,
    check_iterable,
    check_loss,
    check_non_negative,
)
from compopt._typing import Params
from compopt.field import losses_field
from compopt.operators import PolymatrixOperator
from compopt.optim.commit import Commit
from compopt.optim.groups import learning_rate
from compopt.optim.players import TwoPlayerOptimizer
from compopt.optim.report import why_not_taken
from compopt.optim.trouble import Trouble, check_solver, stretch_of
from compopt.solvers import GMRES, ConjugateGradient, Solution, Solver, Status

Losses: TypeAlias = Sequence[Tensor]


class PolymatrixCGD(TwoPlayerOptimizer):
    r"""Competitive gradient descent of n players, each with a loss of its own.

    Each step plays the Nash equilibrium of the local game in which every pair of players interacts
    bilinearly:

    .. math:: \delta = -(I + A H_o)^{-1} A \xi

    with the players' own gradients :math:`\xi_i = \nabla_i L_i`, the blocks :math:`D_{ij} L_i`,
    :math:`i \ne j`, of :math:`H_o`, and the step sizes A: ``lr``, or with ``beta`` those of
    :class:`~compopt.ACGD`. Two players take the steps of CGD and ACGD.

    Args:
        params: for each player what ``torch.optim`` accepts: tensors, named tensors or group
            dictionaries.
        lr: a number, a 0-dim tensor, or one of these for each player.
        beta: decay rate of the average of squared gradients; None for constant step sizes.
        eps: added to the root of that average.
        weight_decay: see :class:`~compopt.CGD`.
        max_grad_norm: see :class:`~compopt.CGD`.
        solver: of the joint linear system; :class:`~compopt.GMRES` with its defaults if None.

    Attributes:
        last_solution: the :class:`~compopt.solvers.Solution` of the last step, None before.

    Note:
        A step that is not finite is not taken; the first time that is said in a
        :class:`~compopt.StepWarning`, and that a solve did not converge in a
        :class:`~compopt.ConvergenceWarning`, as by :class:`~compopt.CGD`.

    Cost: one backward pass for each loss, by all players' parameters, and for each product of the
    solver one backward pass per player.

    References:
        Ma, Letcher, Schäfer, Shi and Anandkumar (2021), Polymatrix competitive gradient descent.
        https://arxiv.org/abs/2111.08565
    """

    _options = (*TwoPlayerOptimizer._options, "_players", "solver")
    _how_to_step = "Call `step(losses)`."
    _how_to_pass: ClassVar[Mapping[str, str]] = {
        "__init__": "Pass the players as one list, `[first_params, second_params, ...]`, a rate "
        "for each as `lr=[...]`, and other hyperparameters by name.",
        "step": "Pass the losses of all players as one list, `[first_loss, second_loss, ...]`.",
    }

    def __init__(
        self,
        params: Sequence[Params],
        lr: float | Tensor | Sequence[float | Tensor] = 1e-3,
        *,
        beta: float | None = None,
        eps: float = 1e-5,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        solver: Solver | None = None,
    ) -> None:
        groups = _tagged_groups(params)
        self._players = tuple(sorted({group["player"] for group in groups}))
        self.solver: Solver = GMRES() if solver is None else solver
        check_solver(self.solver)
        if isinstance(self.solver, ConjugateGradient):
            raise TypeError(
                "`solver` must not be ConjugateGradient: with a loss for each player the linear "
                "system is not symmetric. Use GMRES()."
            )
        defaults = {
            "lr": lr,
            "beta": beta,
            "eps": eps,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
        }
        super().__init__(groups, None, defaults, capturable=False)

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self.last_solution: Solution | None = None
        self._trouble = Trouble()

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        if group["beta"] is not None:
            check_decay_rate("beta", group["beta"])
        check_non_negative("eps", group["eps"])

    def _state_keys(self, player: Any) -> tuple[str, ...]:
        groups = [group for group in self.param_groups if group["player"] == player]
        return ("exp_avg_sq",) if any(group["beta"] is not None for group in groups) else ()

    def step(  # type: ignore[override]
        self, closure: Losses | Callable[[], Losses] | None = None
    ) -> list[Tensor] | None:
        """Take one competitive step of all players.

        Args:
            closure: a sequence of one scalar loss per player with its graph, or a function without
                arguments that returns it. None creates the state and changes nothing else.

        Returns:
            The detached losses.

        Raises:
            TypeError, ValueError: if there is not one scalar with a graph for each player. After
                any error parameters and state are as before.
        """
        with torch.no_grad():
            if closure is None:
                self._idle_step()
                return None
            losses = self._losses(closure)
            params = {player: self._params(player) for player in self._players}
            check_hooks([param for tensors in params.values() for param in tensors])
            field = losses_field(
                dict(zip(self._players, losses, strict=True)), params, second_order=True
            )
            self._trouble.report_strangers(field)
            sizes, averages = {}, {}
            for player, grad in field.grads.items():
                self._clip_groups(player, grad)
                sizes[player], averages[player] = self._step_sizes(player, grad)
            operator = PolymatrixOperator(field, sizes)
            rhs = operator.join(field.grads).mul_(operator.scale)
            solution = self.solver.solve(operator, rhs, overwrite_rhs=True)
            self.last_solution = solution
            moves = operator.split(solution.value.mul(operator.scale).neg_())
            kept = {player: a for player, a in averages.items() if a is not None}

            def stretch() -> float:
                plain_steps = (sizes[player] * grad for player, grad in field.grads.items())
                return stretch_of(moves.values(), plain_steps)

            if self._is_good(solution, losses, kept.values(), stretch):
                commit = Commit()
                for player, delta in moves.items():
                    state = {"exp_avg_sq": kept[player]} if player in kept else {}
                    self._stage(commit, player, delta, state, True)
                commit.run()
            return [loss.detach() for loss in losses]

    def _losses(self, closure: Losses | Callable[[], Losses]) -> list[Tensor]:
        losses = closure
        if callable(losses) and not isinstance(losses, Tensor):
            with torch.enable_grad():
                losses = losses()
        if isinstance(losses, Tensor) or not isinstance(losses, list | tuple):
            raise TypeError(
                f"`losses` must be a list of one loss for each player, got {type(losses).__name__}."
            )
        if len(losses) != len(self._players):
            raise ValueError(
                f"`losses` must have one loss for each of the {len(self._players)} players, got "
                f"{len(losses)}."
            )
        device = self._params(self._players[0])[0].device
        named = {f"losses[{i}]": loss for i, loss in enumerate(losses)}
        checked = [check_loss(name, loss, device) for name, loss in named.items()]
        self._check_unscaled("step", named)
        return checked

    def _step_sizes(self, player: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the step sizes, and the average of squares that goes with the step."""
        step_sizes = torch.empty_like(grad)
        average = None
        if self._state_keys(player):
            stored = self._read_state(player, "exp_avg_sq")
            average = torch.zeros_like(grad) if stored is None else stored.clone()
        for where, group, num_steps in self._segments(player):
            step_sizes[where] = learning_rate(group)
            beta = group["beta"]
            if average is not None and beta is not None:
                average[where].mul_(beta).addcmul_(grad[where], grad[where], value=1 - beta)
                correction = (1 - beta ** (num_steps + 1)) ** 0.5
                step_sizes[where].mul_(correction).div_(average[where].sqrt().add_(group["eps"]))
        return step_sizes, average

    def _is_good(
        self,
        solution: Solution,
        losses: Losses,
        averages: Iterable[Tensor],
        stretch: Callable[[], float],
    ) -> bool:
        """Return whether to take the step, after telling of what is wrong with it."""
        signs = self._trouble.sign_of_gain(solution)
        is_finite = torch.isfinite(solution.value).all()
        for loss in losses:
            is_finite = is_finite & torch.isfinite(loss.reshape(()))
        has_averages = torch.ones_like(is_finite)
        for average in averages:
            has_averages = has_averages & torch.isfinite(average).all()
        flags = [is_finite, has_averages, *signs.values()]
        outcome = torch.stack([solution.status_code, *(flag.long() for flag in flags)])
        code, finite, averaged, *answers = outcome.tolist()
        status = Status(code)
        taken = status <= Status.MAX_ITER and bool(finite) and bool(averaged)
        self._trouble.report(
            status,
            taken,
            [name for name, holds in zip(signs, answers, strict=True) if holds],
            self.solver,
            _Figures(solution),
            on_failure="skip",
            failure=lambda: why_not_taken(
                {f"losses[{i}]": loss for i, loss in enumerate(losses)},
                status,
                has_squares=bool(averaged),
            ),
            stretch=stretch,
        )
        return taken


@dataclass(frozen=True)
class _Figures:
    """What is printed of a step."""

    solution: Solution

    def __str__(self) -> str:
        residual = float(self.solution.residual_norm / self.solution.rhs_norm)
        return f"{self.solution.num_iter} iterations, relative residual {residual:.1e}"


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
