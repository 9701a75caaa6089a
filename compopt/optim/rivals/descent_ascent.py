"""Descent-ascent with any torch optimizer for each player."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from compopt._typing import PLAYERS, LearningRates, Params, Player
from compopt.distributed.meeting import Act
from compopt.game import Game, Losses, LossOrClosure, Terms, as_game, as_loss
from compopt.optim.commit import Commit
from compopt.optim.groups import check_direction, check_spelling, player_lr
from compopt.optim.players import ProcessGroup
from compopt.optim.rivals.base import RivalOptimizer, SimultaneousOptimizer
from compopt.optim.state import drop_removed, kept_whole
from compopt.optim.terms import plain

MakeOptimizer: TypeAlias = Callable[..., torch.optim.Optimizer]
MakeOptimizers: TypeAlias = MakeOptimizer | tuple[MakeOptimizer, MakeOptimizer]


def copied(state: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a copy of a parameter's state, with copies of its tensors."""
    if state is None:
        return None
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()}


class DescentAscent(RivalOptimizer):
    """Base of both orders of play: a torch optimizer per player, on shared groups and state."""

    needs_closure: ClassVar[bool] = False

    def __init__(
        self,
        min_params: Params,
        max_params: Params | None = None,
        lr: LearningRates = 1e-3,
        *,
        optimizer: MakeOptimizers = torch.optim.SGD,
        process_group: ProcessGroup = None,
    ) -> None:
        pair = tuple(optimizer) if isinstance(optimizer, tuple | list) else (optimizer, optimizer)
        if len(pair) != len(PLAYERS) or not all(callable(make) for make in pair):
            raise TypeError(
                "`optimizer` must be a class of torch.optim, a partial of one, or a pair (min, "
                f"max) of them, got {optimizer!r}."
            )
        self._inner: dict[Player, torch.optim.Optimizer] = {}
        super().__init__(
            min_params, max_params, {"lr": lr}, capturable=False, process_group=process_group
        )
        for player, make in zip(PLAYERS, pair, strict=True):
            # The player's optimizer fills its defaults into these shared groups.
            self._inner[player] = make(self._groups(player), lr=player_lr(player, lr))
            for group in self._groups(player):
                self._check_group(group)

    def _groups(self, player: Player) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["player"] == player]

    def _check_group(self, group: dict[str, Any]) -> None:
        check_direction(group)
        inner = self._inner.get(group["player"])
        if inner is not None:
            check_spelling(type(inner).__name__, group, inner.defaults)

    def _check_hyperparameters(self, group: dict[str, Any]) -> None:
        """Leave the check to the players' optimizers."""

    # The state belongs to the players' optimizers.
    _knows_its_state = False

    def _state_keys(self, player: Player) -> tuple[str, ...]:
        return ()

    def _further_settings(self) -> dict[str, str]:
        own = ("params", "player", "lr")
        return {
            f"optimizer of group {index}": type(self._inner[group["player"]]).__name__
            + plain([f"{key}={plain(value)}" for key, value in group.items() if key not in own])
            for index, group in enumerate(self.param_groups)
        }

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to a player: as in ``torch.optim``, with ``player`` in the group."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["player"] in self._inner:
            for key, value in self._inner[group["player"]].defaults.items():
                group.setdefault(key, value)

    def _idle_step(self) -> None:
        self._refuse_gradients()
        with self._undone_on_error():
            for player in PLAYERS:
                # Skip a player with state: its momentum would move it.
                if any(self.state.get(param) for param in self._params(player)):
                    continue
                self._linked(player).step()

    def _linked(self, player: Player) -> torch.optim.Optimizer:
        """Return the player's optimizer, linked to the current groups and state."""
        if len(self.state) > len(self._all_params()):
            drop_removed(self.state, self.param_groups)
        inner = self._inner[player]
        inner.param_groups = self._groups(player)
        inner.state = self.state
        return inner

    def _move(self, player: Player, grad: Tensor) -> None:
        """Take the step of ``player``'s optimizer, then restore ``.grad``."""
        params = self._params(player)
        everything = [param for group in self._groups(player) for param in group["params"]]
        kept = Commit()
        for param in everything:
            kept.add(partial(setattr, param, "grad", param.grad))
        try:
            for param in everything:
                param.grad = None
            views = self._placement.whole(params, self._vectors_of(player).layout, grad)
            for param, view in zip(params, views, strict=True):
                param.grad = view.to(param.dtype)
            self._linked(player).step()
        finally:
            kept.run()

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Restore parameters and state bit for bit if a player's move raises an error."""
        undo = Commit()
        for player in PLAYERS:
            for param in self._params(player):
                undo.copy(param, param.clone())
                undo.add(partial(self._put_back, param, copied(self.state.get(param))))
        try:
            yield
        except BaseException:
            undo.run()
            raise

    def _put_back(self, param: Tensor, state: dict[str, Any] | None) -> None:
        if state is None:
            self.state.pop(param, None)
        else:
            self.state[param] = state

    def _game(
        self, closure: LossOrClosure, min_penalty: Tensor | None, max_penalty: Tensor | None
    ) -> Game:
        device = self._params("min")[0].device
        terms, parts = Terms(min_penalty, max_penalty), self._parts_of()
        game = as_game(closure, terms, device, allows_pair=True, players=parts)
        self._check_call("step", game, *PLAYERS)
        return game

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict; the players' optimizers cast and convert it as they do their own."""
        with kept_whole(self):
            super().load_state_dict(state_dict)
            for player in PLAYERS:
                inner = self._linked(player)
                # Pass the parameters' entries only: some optimizers inspect the first entry.
                own = {p: self.state[p] for p in self._all_params() if p in self.state}
                try:
                    inner.__setstate__({"state": own, "param_groups": inner.param_groups})
                except Exception as error:
                    raise ValueError(
                        f"{type(inner).__name__} of the {player} player does not take the loaded "
                        f"state: {error!r}. It was saved by another optimizer, or is damaged."
                    ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_inner": self._inner}


class SimultaneousDescentAscent(DescentAscent, SimultaneousOptimizer):
    """Descent-ascent in which both players move at once.

    A torch optimizer takes each player's own gradient, of the loss or of the negative loss. With
    :class:`torch.optim.SGD` that is ``w+ = w - lr xi(w)``.

    Args:
        min_params: see :class:`~compopt.CGD`, as for the next two.
        max_params: the second player's.
        lr: learning rate of the players' optimizers.
        optimizer: creates a player's optimizer from its groups and ``lr=``, such as
            ``torch.optim.Adam`` or ``functools.partial(torch.optim.Adam, betas=(0.5, 0.9))``; or a
            pair (min, max) of these. The groups hold its hyperparameters.
        process_group: the processes that share each step; see :class:`~compopt.CGD`.

    Cost: one evaluation of the loss and one backward pass, and a copy of parameters and state, to
    restore them after an error.
    """

    def _take(
        self, closure: LossOrClosure, min_penalty: Tensor | None, max_penalty: Tensor | None
    ) -> Losses:
        game = self._game(closure, min_penalty, max_penalty)
        self._meet(Act.STEP, game)
        derivatives = self._differentiate(game)
        losses, grads = derivatives.losses, derivatives.grads
        if self._are_finite([*losses, *grads.values()]):
            with self._undone_on_error():
                for player in PLAYERS:
                    self._move(player, grads[player])
                self._is_taken = True
        else:
            self._warn_not_taken()
        return as_loss(losses)
