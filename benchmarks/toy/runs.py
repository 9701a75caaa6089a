"""Runs of one optimizer on one game."""

import math
import warnings
from typing import Any

import torch

from benchmarks.toy.methods import Method
from compopt import ConvergenceWarning, StepWarning, games

# Beyond this a run has diverged, and is not continued.
LIMIT = 1e8
NUM_POINTS = 60


def scalar_run(method: Method, game: games.TestGame, lr: float = 0.2, steps: int = 50) -> Any:
    """Return the path of both players of a scalar game, ended where it passes the limit."""
    x, y = game.players()
    optimizer = method.make([x], [y], lr=lr)
    path = [[x.item(), y.item()]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StepWarning)
        for _ in range(steps):
            optimizer.step(lambda: game.loss(x, y))
            path.append([x.item(), y.item()])
            if not math.hypot(*path[-1]) < 1e60:
                break
    return {"path": [[float(f"{v:.8g}") for v in point] for point in path]}


def covariance_run(
    method: Method, lr: float, budget: int, size: int, num_samples: int | None, draw: int = 0
) -> Any:
    """Return the error of covariance estimation against forward-pass equivalents."""
    game = games.covariance_estimation(size, num_samples=num_samples, seed=draw)
    x, y = game.players()
    optimizer = method.make([x], [y], lr=lr)
    error = games.covariance_error(game, x, y)
    passes, errors, used, steps = 0, [error], [0], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StepWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        while passes < budget:
            optimizer.step(lambda: game.loss(x, y))
            passes += method.cost(optimizer)
            steps += 1
            if steps % 20 and passes < budget:
                continue
            error = games.covariance_error(game, x, y)
            if not error < LIMIT:
                break
            if passes >= used[-1] + budget / NUM_POINTS or passes >= budget:
                errors.append(error)
                used.append(passes)
    return {
        "passes": used,
        "errors": [float(f"{value:.4g}") for value in errors],
        "steps": steps,
        "diverged": not error < LIMIT,
    }


def mixture_run(method: Method, lr: float, seed: int, steps: int) -> Any:
    """Return the shares of points near each mode along the training of the two-Gaussian GAN."""
    gan = games.two_gaussian_gan(seed)
    optimizer = method.make(gan.generator.parameters(), gan.critic.parameters(), lr=lr)
    shares, passes = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StepWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        for step in range(1, steps + 1):
            optimizer.step(gan.loss)
            passes += method.cost(optimizer)
            if step % max(steps // 20, 1) == 0:
                shares.append([round(share, 3) for share in gan.mode_shares()])
    with torch.no_grad():
        points = gan.fake(200)
    finite = bool(torch.isfinite(points).all())
    return {
        "shares": shares,
        "passes": passes,
        "points": [[round(v, 3) for v in point] for point in points.tolist()] if finite else [],
    }
