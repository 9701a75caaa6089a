"""Training methods of the networks for the Poisson equation."""

from collections.abc import Callable
from typing import Any

import torch
from poisson_problem import Residuals, Solution

from compopt import ACGD, GMRES, ConjugateGradient

GAME = {"lr": 5e-3, "eps": 1e-8, "warm_start": True}
# torch's L-BFGS discards updates with a curvature ``y . s`` below 1e-10, regardless of the loss's
# scale: at a loss of 1e-6 it would no longer update its curvature and stall.
LOSS_SCALE = 1e6
SETTINGS: dict[str, dict[str, Any]] = {
    "PINN, Adam": {"lr": 1e-3},
    "PINN, L-BFGS": {"history_size": 50, "line_search_fn": "strong_wolfe", "tolerance_change": 0.0},
    "CPINN, ACGD": {**GAME, "solver": ConjugateGradient(rtol=1e-3, max_iter=200)},
    "CPINN, general-sum ACGD": {**GAME, "solver": GMRES(rtol=1e-3, max_iter=200, restart=50)},
}


def method(
    name: str, solution: Solution, bets: torch.nn.Module, residuals: Residuals
) -> tuple[torch.optim.Optimizer, Callable[[], object]]:
    """Return the optimizer called ``name``, and a function that takes its step."""
    settings = SETTINGS[name]
    if "CPINN" in name:
        game = ACGD(solution.parameters(), bets.parameters(), **settings)

        def play() -> object:
            bet = residuals.bet(solution, bets)
            return game.step((bet, -bet) if "general" in name else bet)

        return game, play
    scale = LOSS_SCALE if "L-BFGS" in name else 1.0
    optimizer: torch.optim.Optimizer
    if "L-BFGS" in name:
        optimizer = torch.optim.LBFGS(solution.parameters(), **settings)
    else:
        optimizer = torch.optim.Adam(solution.parameters(), **settings)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = scale * residuals.squared(solution)
        loss.backward()
        return loss

    return optimizer, lambda: optimizer.step(closure)
