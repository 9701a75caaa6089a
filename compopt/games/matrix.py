"""Matrix games in mixed strategies, for mirror descent or through a softmax."""

import torch
from torch import Tensor

from compopt.games.base import TestGame, sorted_spectrum


def matrix_game(
    name: str, payoff: Tensor, *, logits: bool, start: tuple[Tensor, Tensor]
) -> TestGame:
    """Return the game ``p' payoff q``, whose equilibrium must be uniform.

    Args:
        name: name of the game.
        payoff: [n, m] loss of the row player, who minimises.
        logits: whether the parameters are logits, with ``p = softmax(x)``; otherwise they are
            probabilities, which only a mirror step keeps on the simplex.
        start: positive probabilities of each player, summing to 1.
    """

    def loss(x: Tensor, y: Tensor) -> Tensor:
        p, q = (x.softmax(0), y.softmax(0)) if logits else (x, y)
        return p @ payoff.to(x) @ q

    rows, columns = payoff.shape
    uniform = tuple(torch.full((n,), 1 / n, dtype=torch.float64) for n in (rows, columns))
    spectrum = None
    if logits:
        # At uniform strategies the Jacobian of the softmax is the centring matrix divided by n.
        c_rows, c_columns = (
            (torch.eye(n, dtype=torch.float64) - 1 / n) / n for n in (rows, columns)
        )
        mixed = c_rows @ payoff @ c_columns
        jacobian = torch.zeros(rows + columns, rows + columns, dtype=torch.float64)
        jacobian[:rows, rows:], jacobian[rows:, :rows] = mixed, -mixed.T
        spectrum = sorted_spectrum(torch.linalg.eigvals(jacobian))
    x0, y0 = (p.log() - p.log().mean() for p in start) if logits else start
    solution = tuple(torch.zeros_like(p) for p in uniform) if logits else uniform
    return TestGame(
        name=name,
        loss=loss,
        start=(x0, y0),
        solution=(solution[0], solution[1]),
        spectrum=spectrum,
        source="",
    )


def matching_pennies(*, logits: bool = True) -> TestGame:
    """Return matching pennies: the max player wins if both sides are equal."""
    payoff = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    start = tuple(torch.tensor(p, dtype=torch.float64) for p in ([0.8, 0.2], [0.3, 0.7]))
    return matrix_game("matching pennies", payoff, logits=logits, start=(start[0], start[1]))


def rock_paper_scissors(*, logits: bool = False) -> TestGame:
    """Return rock-paper-scissors, played with probabilities unless ``logits``."""
    payoff = torch.tensor([[0.0, 1, -1], [-1, 0, 1], [1, -1, 0]], dtype=torch.float64)
    start = tuple(torch.tensor(p, dtype=torch.float64) for p in ([0.6, 0.3, 0.1], [0.2, 0.2, 0.6]))
    return matrix_game("rock-paper-scissors", payoff, logits=logits, start=(start[0], start[1]))
