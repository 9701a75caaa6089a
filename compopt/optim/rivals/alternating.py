"""Alternating descent-ascent with any torch optimizer for each player."""

from typing import ClassVar, overload

import torch
from torch import Tensor

from compopt._checks import check_choice
from compopt._typing import OPPONENT, PLAYERS, LearningRates, Params, Player
from compopt.distributed.meeting import Act
from compopt.game import L_co, Losses, LossOrClosure, as_loss
from compopt.optim.players import ProcessGroup
from compopt.optim.rivals.descent_ascent import DescentAscent, MakeOptimizers


class _NotFiniteError(Exception):
    """A player's gradient is not finite."""


class AlternatingDescentAscent(DescentAscent):
    """Descent-ascent in which the second mover sees the move of the first.

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: learning rate of the players' optimizers.
        optimizer: see :class:`SimultaneousDescentAscent`.
        first: the player that moves first.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: two evaluations of the loss, each with one backward pass for one player, and a copy of
    parameters and state. ``step`` needs a closure.
    """

    needs_closure: ClassVar[bool] = True
    _options = (*DescentAscent._options, "first")
    _how_to_step = "Call `step(closure)`."

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        *,
        first: Player = "min",
        optimizer: MakeOptimizers = torch.optim.SGD,
        process_group: ProcessGroup = None,
    ) -> None:
        check_choice("first", first, PLAYERS)
        self.first: Player = first
        super().__init__(
            min_params, max_params, lr, optimizer=optimizer, process_group=process_group
        )

    @overload  # type: ignore[override]
    def step(self, closure: LossOrClosure[L_co]) -> L_co: ...

    @overload
    def step(self, closure: None = None) -> None: ...

    def step(self, closure: LossOrClosure | None = None) -> Losses | None:
        """Take one step of each player in turn.

        Args:
            closure: a function without arguments that returns the loss and does not call
                ``backward()``, called once for each player; see :meth:`ExtraGradient.step`.

        Returns:
            The detached loss, or pair of losses, of the first call. If the loss or a gradient is
            not finite, neither player moves, with a StepWarning the first time.
        """
        with torch.no_grad(), self._together(closure):
            if closure is None:
                self._idle_step()
                return None
            if isinstance(closure, Tensor) or not callable(closure):
                raise TypeError(
                    "AlternatingDescentAscent evaluates the loss once for each player, so `step` "
                    "needs a closure: a function without arguments that computes the loss again, "
                    f"e.g. `step(lambda: loss_fn(batch))`; got {type(closure).__name__}."
                )
            # Raises if a player is frozen, before either moves.
            self._params(OPPONENT[self.first])
            losses: list[Losses] = []
            try:
                with self._undone_on_error():
                    for player in (self.first, OPPONENT[self.first]):
                        self._turn(player, closure, losses)
                    self._is_taken = True
            except _NotFiniteError:
                self._warn_not_taken()
            return losses[0]

    def _turn(self, player: Player, closure: LossOrClosure, losses: list[Losses]) -> None:
        game = self._game(closure, None, None)
        if not losses:
            self._meet(Act.STEP, game)
        derivatives = self._differentiate(game.of(player), [player])
        own = derivatives.losses[0]
        # Only the loss that was differentiated has been averaged over processes.
        both = tuple(
            own if player in objective.signs else self._placement.mean(objective.loss.detach())
            for objective in game.objectives()
        )
        losses.append(as_loss(both))
        if not self._are_finite([*both, *derivatives.grads.values()]):
            raise _NotFiniteError
        self._move(player, derivatives.grads[player])
