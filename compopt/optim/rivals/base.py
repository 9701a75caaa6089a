"""The common parts of the optimizers that follow the gradient field."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, overload

import torch
from torch import Tensor
from typing_extensions import TypedDict, Unpack

from compopt._typing import PLAYERS, LearningRates, Params, Player
from compopt.derivatives import Derivatives
from compopt.distributed.meeting import Act
from compopt.game import L_co, Losses, LossOrClosure, Penalties, Terms, as_game, as_loss
from compopt.optim.commit import Commit
from compopt.optim.players import ProcessGroup
from compopt.optim.report import StepWarning
from compopt.optim.reporter import Reporter
from compopt.optim.settings import learning_rate
from compopt.optim.stepping import SteppingOptimizer


@dataclass(frozen=True)
class Move:
    """What a step does to one player.

    Attributes:
        delta: [size of the player], added to its parameters.
        state: by key, vectors [size of the player] to store.
    """

    delta: Tensor
    state: Mapping[str, Tensor] = field(default_factory=dict)


class RivalOptimizer(SteppingOptimizer):
    """Base of all rival optimizers. Warns once if a step is not taken."""

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._reporter = Reporter()

    def _warn_not_taken(self) -> None:
        message = "A step was not taken, and later ones may not be either: the loss, a gradient or "
        message += "the step itself holds NaN or Inf. Parameters and state are as before."
        self._reporter.warn_once("failure", message, StepWarning)

    def _are_finite(self, vectors: Iterable[Tensor]) -> bool:
        """Return True if losses and vectors are finite on all processes. Reads one value."""
        # A sum is not finite if a summand is not.
        sums = [vector.sum().double().reshape(()) for vector in vectors]
        finite = torch.isfinite(torch.stack(sums)).all()
        return bool(self._placement.agree(self._placement.total((~finite).float()) == 0))


class SimultaneousOptimizer(RivalOptimizer):
    """Base of the optimizers that move both players at once."""

    @abstractmethod
    def _take(
        self, closure: LossOrClosure, min_penalty: Tensor | None, max_penalty: Tensor | None
    ) -> Losses:
        """Take a step, and return the loss or the losses, detached."""

    @overload  # type: ignore[override]
    def step(self, closure: LossOrClosure[L_co], **terms: Unpack[Penalties]) -> L_co: ...

    @overload
    def step(self, closure: None = None) -> None: ...

    def step(
        self,
        closure: LossOrClosure | None = None,
        *,
        min_penalty: Tensor | None = None,
        max_penalty: Tensor | None = None,
    ) -> Losses | None:
        """Take one step of both players.

        Args:
            closure: a function without arguments that returns the loss and does not call
                ``backward()``; or, where the algorithm has no second point, the loss itself with
                its graph. The loss is a scalar, a pair (min, max) of scalars, a
                :class:`~compopt.Game`, or :class:`~compopt.MicroBatches`, which are averaged. None
                creates the state and changes nothing else.
            min_penalty: scalar that the min player also minimises. It is differentiated once. A
                closure that is called at a second point returns it in a :class:`~compopt.Game`.
            max_penalty: scalar that the max player also *minimises*.

        Returns:
            The detached loss, or pair of losses, of the first evaluation. A step that is not finite
            is not taken; the first time with a :class:`~compopt.StepWarning`.

        Raises:
            TypeError, ValueError: if the loss is not a scalar with a graph, or a closure is needed.
                Any error, in the closure too, leaves parameters and state unchanged.
        """
        with torch.no_grad(), self._together(closure):
            if closure is None:
                self._idle_step()
                return None
            return self._take(closure, min_penalty, max_penalty)


class FieldOptions(TypedDict, total=False):
    """Keywords of all optimizers that follow the field."""

    weight_decay: float
    max_grad_norm: float | None
    process_group: ProcessGroup


class FieldOptimizer(SimultaneousOptimizer):
    """Base of the optimizers that compute moves from the players' own gradients.

    Subclasses implement ``_moves``. ``step`` takes one zero-sum loss, or a pair (min, max) of
    losses, where each player minimises its own.

    Args:
        min_params: parameters of the first player: tensors, named tensors or group dictionaries.
        max_params: parameters of the second player; None if ``min_params`` has the groups of both.
        lr: a number, a 0-dim tensor, or a pair (min, max) of them.
        weight_decay: decoupled; each step first multiplies parameters by ``1 - lr weight_decay``.
        max_grad_norm: largest Euclidean norm of a group's gradient, at each evaluation.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.
    """

    needs_closure: ClassVar[bool] = False
    """Whether a step evaluates the loss at another point than the parameters."""

    _is_second_order: ClassVar[bool] = False

    _own: Mapping[str, Any] = {}
    """Defaults of the algorithm's own hyperparameters."""

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        *,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        process_group: ProcessGroup = None,
    ) -> None:
        common = {"weight_decay": weight_decay, "max_grad_norm": max_grad_norm}
        super().__init__(
            min_params,
            max_params,
            {"lr": lr, **self._own, **common},
            capturable=False,
            process_group=process_group,
        )

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        """Accept all groups: there are no further hyperparameters."""

    def _state_keys(self, player: Player) -> tuple[str, ...]:
        return ()

    @property
    def _how_to_step(self) -> str:  # type: ignore[override]
        return "Call `step(closure)`." if self.needs_closure else "Call `step(loss)`."

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._way_back = Commit()

    @abstractmethod
    def _moves(self, evaluate: "Evaluation") -> dict[Player, Move]:
        """Return the moves of a step, without changing parameters or state."""

    def _take(
        self, closure: LossOrClosure, min_penalty: Tensor | None, max_penalty: Tensor | None
    ) -> Losses:
        evaluate = Evaluation(self, closure, min_penalty, max_penalty)
        try:
            moves = self._moves(evaluate)
        except BaseException:
            # An interrupt may have left the parameters displaced.
            self._way_back.run()
            raise
        vectors = [v for m in moves.values() for v in (m.delta, *m.state.values())]
        if not self._are_finite([*evaluate.all_losses, *vectors]):
            self._warn_not_taken()
            return evaluate.loss
        commit = self._commit(True)
        for player, move in moves.items():
            self._vectors_of(player).stage_step(commit, move.delta, True, move.state)
        commit.run()
        return evaluate.loss

    def _scaled(self, player: Player, vector: Tensor, key: str = "lr") -> Tensor:
        """Multiply ``vector`` in place by the hyperparameter ``key`` of each group."""
        for where, group, _ in self._vectors_of(player).segments:
            vector[where].mul_(learning_rate(group) if key == "lr" else group[key])
        return vector

    def _stored(self, player: Player, key: str) -> Tensor:
        """Return a copy of a state vector, zeros before the first step."""
        vectors = self._vectors_of(player)
        stored, layout = vectors.read(key), vectors.layout
        if stored is None:
            return torch.zeros(layout.numel, dtype=layout.dtype, device=layout.device)
        return stored.clone()

    @contextmanager
    def _displaced(self, deltas: Mapping[Player, Tensor]) -> Iterator[None]:
        """Move the parameters within the context, and restore them bit for bit at its end."""
        params = {player: self._params(player) for player in deltas}
        self._way_back = restored = Commit()
        for tensors in params.values():
            for param in tensors:
                restored.copy(param, param.clone())
        try:
            for player, delta in deltas.items():
                views = self._placement.whole(
                    params[player], self._vectors_of(player).layout, delta
                )
                for param, view in zip(params[player], views, strict=True):
                    param.add_(view)
            yield
        finally:
            restored.run()


class SecondOrderOptimizer(FieldOptimizer):
    """Base of the optimizers that multiply by second derivatives."""

    _is_second_order: ClassVar[bool] = True


class Evaluation:
    """Evaluates the gradient field at the parameters, or displaced from them.

    Attributes:
        loss: the detached loss, or pair of losses, of the first evaluation.
        all_losses: the losses of all evaluations.
    """

    loss: Losses

    def __init__(
        self,
        optimizer: FieldOptimizer,
        closure: LossOrClosure,
        min_penalty: Tensor | None,
        max_penalty: Tensor | None,
    ) -> None:
        self._optimizer = optimizer
        self._closure = closure
        self._penalties = (min_penalty, max_penalty)
        self.all_losses: list[Tensor] = []
        if not optimizer.needs_closure:
            return
        name = type(optimizer).__name__
        if isinstance(closure, Tensor) or not callable(closure):
            raise TypeError(
                f"{name} evaluates the loss at another point, so `step` needs a closure: a "
                "function without arguments that computes the loss again, e.g. "
                f"`step(lambda: loss_fn(batch))`; got {type(closure).__name__}."
            )
        if min_penalty is not None or max_penalty is not None:
            raise ValueError(
                f"{name} evaluates the penalties at another point as well: return "
                "`Game(loss, min_penalty, max_penalty)` from the closure."
            )

    def __call__(self, deltas: Mapping[Player, Tensor] | None = None) -> Derivatives[Player]:
        """Return the derivatives with the players moved by ``deltas``, gradients clipped."""
        optimizer = self._optimizer
        with optimizer._displaced(deltas or {}):
            game = as_game(
                self._closure,
                Terms(*self._penalties),
                optimizer.param_groups[0]["params"][0].device,
                allows_pair=True,
                players=optimizer._parts_of(),
            )
            if optimizer._is_second_order:
                optimizer._refuse_hooks()
            optimizer._check_call("step", game, *(() if optimizer._is_second_order else PLAYERS))
            if not self.all_losses:
                optimizer._meet(Act.STEP, game)
            result = optimizer._differentiate(game, second_order=optimizer._is_second_order)
            if optimizer._is_second_order:
                optimizer._reporter.report_independence(result)
                optimizer._reporter.report_apart(result)
        if not self.all_losses:
            self.loss = as_loss(result.losses)
        self.all_losses += result.losses
        for player, grad in result.grads.items():
            optimizer._clip_groups(player, grad)
        return result
