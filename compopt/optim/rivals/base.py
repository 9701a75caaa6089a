"""What the optimizers that follow the gradient field have in common."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from compopt._checks import check_hooks
from compopt._flat import FlatLayout
from compopt._typing import PLAYERS, Params, Player
from compopt.field import GradientField, game_field
from compopt.optim.commit import Commit
from compopt.optim.groups import learning_rate
from compopt.optim.loss import LossOrClosure, Terms, as_game
from compopt.optim.players import TwoPlayerOptimizer
from compopt.optim.report import StepWarning
from compopt.optim.trouble import Trouble

LearningRate = float | Tensor | tuple[float | Tensor, float | Tensor]


@dataclass(frozen=True)
class Move:
    """What a step does to one player.

    Attributes:
        delta: [size of the player], added to its parameters.
        state: by key, vectors [size of the player] to store.
    """

    delta: Tensor
    state: Mapping[str, Tensor] = field(default_factory=dict)


def are_finite(losses: Iterable[Tensor | tuple[Tensor, Tensor]], vectors: Iterable[Tensor]) -> bool:
    """Return whether losses, or pairs of them, and vectors are finite. Reads one value."""
    single = [one for loss in losses for one in (loss if isinstance(loss, tuple) else (loss,))]
    # A sum keeps what is not finite in a summand.
    sums = [vector.sum().double().reshape(()) for vector in (*single, *vectors)]
    return bool(torch.isfinite(torch.stack(sums)).all())


class RivalOptimizer(TwoPlayerOptimizer):
    """Base of all optimizers here: says once when a step is not taken."""

    def _reset_transient(self) -> None:
        super()._reset_transient()
        self._trouble = Trouble()

    def _say_not_taken(self) -> None:
        message = "A step was not taken, and later ones may not be either: the loss, a gradient or "
        message += "the step itself holds NaN or Inf. Parameters and state are as before."
        self._trouble.warn_once("failure", message, StepWarning)


class FieldOptimizer(RivalOptimizer):
    """Base of the optimizers that are a rule on the players' own gradients.

    Subclasses give ``_moves``. ``step`` takes one zero-sum loss, or a pair (min, max) of losses of
    which each player minimises its own.

    Args:
        min_params: of the first player: tensors, named tensors or group dictionaries.
        max_params: of the second player; None if the first argument has the groups of both.
        defaults: of the hyperparameters of the algorithm itself.
        lr: a number, a 0-dim tensor, or a pair (min, max) of them.
        weight_decay: decoupled; each step first multiplies parameters by ``1 - lr weight_decay``.
        max_grad_norm: largest Euclidean norm of a group's gradient, at each evaluation.
    """

    needs_closure: ClassVar[bool] = False
    """Whether a step evaluates the loss at another point than where the parameters are."""

    _is_second_order: ClassVar[bool] = False

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None,
        lr: LearningRate,
        weight_decay: float,
        max_grad_norm: float | None,
        **defaults: Any,
    ) -> None:
        common = {"weight_decay": weight_decay, "max_grad_norm": max_grad_norm}
        super().__init__(min_params, max_params, {"lr": lr, **defaults, **common}, capturable=False)

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        """Nothing to check besides what all groups have."""

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
        """Return what a step does, leaving parameters and state alone."""

    def step(  # type: ignore[override]
        self,
        closure: LossOrClosure | None = None,
        *,
        min_penalty: Tensor | None = None,
        max_penalty: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor] | None:
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
            is not taken; the first time that is said in a :class:`~compopt.StepWarning`.

        Raises:
            TypeError, ValueError: if the loss is not a scalar with a graph, or a closure is needed.
                After any error, in the closure too, parameters and state are as before.
        """
        with torch.no_grad():
            if closure is None:
                self._idle_step()
                return None
            evaluate = Evaluation(self, closure, min_penalty, max_penalty)
            try:
                moves = self._moves(evaluate)
            except BaseException:
                # An interrupt may have come between a look ahead and the way back.
                self._way_back.run()
                raise
            vectors = [v for m in moves.values() for v in (m.delta, *m.state.values())]
            if not are_finite(evaluate.losses, vectors):
                self._say_not_taken()
                return evaluate.losses[0]
            commit = Commit()
            for player, move in moves.items():
                self._stage(commit, player, move.delta, move.state, True)
            commit.run()
            return evaluate.losses[0]

    def _weigh(self, player: Player, vector: Tensor, key: str = "lr") -> Tensor:
        """Multiply ``vector`` in place by the hyperparameter ``key`` of each group."""
        for where, group, _ in self._segments(player):
            vector[where].mul_(learning_rate(group) if key == "lr" else group[key])
        return vector

    def _stored(self, player: Player, key: str) -> Tensor:
        """Return a copy of a state vector, zeros before the first step."""
        stored = self._read_state(player, key)
        if stored is None:
            layout = FlatLayout.of(self._params(player))
            return torch.zeros(layout.numel, dtype=layout.dtype, device=layout.device)
        return stored.clone()

    @contextmanager
    def _displaced(self, deltas: Mapping[Player, Tensor]) -> Iterator[None]:
        """Move the parameters, and put them back bit for bit, whatever happens."""
        params = {player: self._params(player) for player in deltas}
        self._way_back = restored = Commit()
        for tensors in params.values():
            for param in tensors:
                restored.copy(param, param.clone())
        try:
            for player, delta in deltas.items():
                views = FlatLayout.of(params[player]).views(delta)
                for param, view in zip(params[player], views, strict=True):
                    param.add_(view)
            yield
        finally:
            restored.run()


class Evaluation:
    """Evaluates the gradient field where the parameters are, or displaced from there.

    Attributes:
        losses: the detached loss, or pair of losses, of each evaluation.
    """

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
        self.losses: list[Tensor | tuple[Tensor, Tensor]] = []
        if not optimizer.needs_closure:
            return
        name = type(optimizer).__name__
        if isinstance(closure, Tensor) or not callable(closure):
            raise TypeError(
                f"{name} evaluates the loss at another point, so `step` needs a closure: a "
                "function without arguments that computes the loss anew, e.g. "
                f"`step(lambda: loss_fn(batch))`; got {type(closure).__name__}."
            )
        if min_penalty is not None or max_penalty is not None:
            raise ValueError(
                f"{name} evaluates the penalties at another point as well: return "
                "`Game(loss, min_penalty, max_penalty)` from the closure."
            )

    def __call__(self, deltas: Mapping[Player, Tensor] | None = None) -> GradientField[Player]:
        """Return the field with the players moved by ``deltas``, its gradients clipped."""
        with self._optimizer._displaced(deltas or {}):
            params = {player: self._optimizer._params(player) for player in PLAYERS}
            device = params["min"][0].device
            if self._optimizer._is_second_order:
                check_hooks([*params["min"], *params["max"]])
            game = as_game(self._closure, Terms(*self._penalties), device, allows_pair=True)
            self._optimizer._check_unscaled("step", game.terms())
            self.losses.append(game.detached_loss())
            result = game_field(game, params, second_order=self._optimizer._is_second_order)
            if self._optimizer._is_second_order and not result.is_zero_sum:
                self._optimizer._trouble.report_independent_pair(result)
        for player, grad in result.grads.items():
            self._optimizer._clip_groups(player, grad)
        return result
