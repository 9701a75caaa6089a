"""The step of ACGD from dense matrices, whose second derivatives are differences of gradients.

For losses that are written with modules, as users write them: these are evaluated where parameters
stand, with buffers and random numbers as they were.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from dense import AdaptiveStepSizes, assert_close, flat
from torch import Tensor, nn

from compopt import Game

PLAYERS = ("min", "max")
WIDTH = 1e-5
Losses = Callable[[], Any]
"""Returns what a step takes: a loss, a pair or a `Game`, with its graph."""


def as_game(losses: Any) -> Game:
    if isinstance(losses, tuple):
        return Game(losses[0], max_loss=losses[1])
    return losses if isinstance(losses, Game) else Game(losses)


def own_loss(game: Game) -> Tensor:
    """Return what the max player lowers, its penalty left out."""
    return -game.loss if game.max_loss is None else game.max_loss


class DifferenceSteps:
    """What the parameters of both players must be after each step of ``ACGD``."""

    def __init__(
        self,
        min_modules: Sequence[nn.Module],
        max_modules: Sequence[nn.Module],
        lr: float,
        *,
        beta: float = 0.99,
        eps: float = 1e-5,
    ) -> None:
        self.params = {
            player: [param for module in modules for param in module.parameters()]
            for player, modules in zip(PLAYERS, (min_modules, max_modules), strict=True)
        }
        self.buffers = [buffer for m in (*min_modules, *max_modules) for buffer in m.buffers()]
        self.rates = {player: AdaptiveStepSizes(lr, beta, eps) for player in PLAYERS}
        self.num_checked = 0

    @contextmanager
    def expected(self, losses: Losses, player: str | None = None) -> Iterator[None]:
        """Compare the step taken inside, of both players or one, with the dense one."""
        wanted = {name: flat(self.params[name]) for name in PLAYERS}
        for name, move in self.moves(losses, player).items():
            wanted[name] = wanted[name] + move
        yield
        for name in PLAYERS:
            assert_close(flat(self.params[name]), wanted[name], 1e-8, f"the {name} player")
        self.num_checked += 1

    def moves(self, losses: Losses, player: str | None = None) -> dict[str, Tensor]:
        grads = {
            name: self._own_gradient(losses, name) for name in PLAYERS if player in (None, name)
        }
        rates = {name: self.rates[name](grad) for name, grad in grads.items()}
        plain = {name: -rates[name] * grad for name, grad in grads.items()}
        if player is not None:
            return plain
        # Each column is where both opponents' gradients go with one parameter of the min player.
        columns = [self._difference(losses, index) for index in range(len(grads["min"]))]
        in_min, in_max = (torch.stack(part) for part in zip(*columns, strict=True))
        n, m = in_min.shape
        matrix = torch.eye(n + m, dtype=torch.float64)
        matrix[:n, n:] = rates["min"][:, None] * in_min
        matrix[n:, :n] = rates["max"][:, None] * in_max.T
        solution = torch.linalg.solve(matrix, torch.cat([plain["min"], plain["max"]]))
        return {"min": solution[:n], "max": solution[n:]}

    @contextmanager
    def _evaluated(self, losses: Losses) -> Iterator[Game]:
        """Give the game, leaving buffers and random numbers as they were."""
        before = [buffer.clone() for buffer in self.buffers]
        with torch.random.fork_rng(devices=[]):
            yield as_game(losses())
        # Not before, as graphs may need them.
        with torch.no_grad():
            for buffer, old in zip(self.buffers, before, strict=True):
                buffer.copy_(old)

    def _gradient(self, loss: Tensor, player: str) -> Tensor:
        params = self.params[player]
        grads = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
        pairs = zip(params, grads, strict=True)
        return flat([torch.zeros_like(p) if grad is None else grad for p, grad in pairs])

    def _own_gradient(self, losses: Losses, player: str) -> Tensor:
        with self._evaluated(losses) as game:
            if player == "min":
                own, penalty = game.loss, game.min_penalty
            else:
                own, penalty = own_loss(game), game.max_penalty
            return self._gradient(own if penalty is None else own + penalty, player)

    def _difference(self, losses: Losses, index: int) -> tuple[Tensor, Tensor]:
        """Differentiate the max player's gradients of both losses by one entry of the other."""
        ends = []
        for shift in (WIDTH, -WIDTH):
            with self._shifted(index, shift), self._evaluated(losses) as game:
                both = (game.loss, own_loss(game))
                ends.append([self._gradient(loss, "max") for loss in both])
        first, second = ((a - b) / (2 * WIDTH) for a, b in zip(*ends, strict=True))
        return first, second

    @contextmanager
    def _shifted(self, index: int, shift: float) -> Iterator[None]:
        for param in self.params["min"]:
            if index < param.numel():
                break
            index -= param.numel()
        entry = param.detach().view(-1)[index : index + 1]
        before = entry.clone()
        entry.add_(shift)
        try:
            yield
        finally:
            entry.copy_(before)
