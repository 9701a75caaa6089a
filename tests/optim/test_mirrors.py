"""Competitive mirror descent: closed forms, and iterates that stay strictly inside their sets."""

from typing import Any

import pytest
import torch
from covering import pairwise
from mirror_sets import (
    POINTS,
    POTENTIALS,
    assert_close,
    assert_inside,
    game_of,
    leaf,
    psd,
)
from torch import Tensor
from torch.autograd.functional import hessian

from compopt import ACGD, CGD, GMRES, ConjugateGradient, DirectSolver, games


@pairwise(
    mirror={str(mirror): mirror for mirror in POINTS},
    solve_for=["min", "max"],
    general={"zero-sum": False, "pair": True},
)
def test_step_is_the_published_one(mirror: Any, solve_for: str, general: bool) -> None:
    """``P d_x / eta = -(g_x + D d_y)``, ``d_y = eta (g_y + D^T d_x)`` by one dense solve."""
    x, y, loss = game_of(mirror)
    # Of a matrix the move must stay where the dual step exists.
    eta = 0.0005 if mirror == "positive-definite" else 0.05
    solver = GMRES(rtol=1e-14, max_iter=40) if general else DirectSolver()
    optimizer = CGD([x], [y], lr=eta, mirror=(mirror, "euclidean"), solver=solver)
    optimizer.solve_for = solve_for
    grad_x, grad_y = torch.autograd.grad(loss(), [x, y], create_graph=True)
    mixed = torch.stack(
        [torch.autograd.grad(g, x, retain_graph=True)[0].reshape(-1) for g in grad_y], 1
    )
    potential, point = POTENTIALS[mirror], x.detach().clone()
    n = x.numel()
    metric = hessian(potential, point).reshape(n, n)
    if mirror == "positive-definite":
        # The gradient by a symmetric matrix, and the metric of moves in all entries.
        swap = torch.arange(n).reshape(x.shape).T.reshape(-1)
        grad_x, mixed = (grad_x + grad_x.mT) / 2, (mixed + mixed[swap]) / 2
    matrix = torch.zeros(n + 2, n + 2, dtype=torch.float64)
    matrix[:n, :n], matrix[:n, n:] = metric / eta, mixed
    matrix[n:, :n], matrix[n:, n:] = -mixed.T, torch.eye(2, dtype=torch.float64) / eta
    rhs = torch.cat([-grad_x.reshape(-1), grad_y]).detach()
    if mirror == "simplex":
        # Each row keeps its sum: a multiplier for each.
        sums = torch.zeros(2, n + 2, dtype=torch.float64)
        sums[0, :3], sums[1, 3:6] = 1, 1
        zero = torch.zeros(2, 2, dtype=torch.float64)
        matrix = torch.cat([torch.cat([matrix, sums.T], 1), torch.cat([sums, zero], 1)])
        rhs = torch.cat([rhs, torch.zeros(2, dtype=torch.float64)])
    solution = torch.linalg.solve(matrix, rhs)
    move = solution[:n].reshape(x.shape)
    old_y = y.detach().clone()
    optimizer.step((loss(), -loss()) if general else loss())
    assert optimizer.last_step.taken
    assert_close(y.detach() - old_y, solution[n : n + 2], 1e-10)
    expected = torch.func.grad(potential)(point) + (metric @ move.reshape(-1)).reshape(x.shape)
    actual = torch.func.grad(potential)(x.detach())
    if mirror == "simplex":
        actual, expected = (d - d.mean(-1, keepdim=True) for d in (actual, expected))
    assert_close(actual, expected, 1e-9)


@pytest.mark.parametrize("cls", [CGD, ACGD])
def test_an_unused_mirror_changes_no_bit(cls: Any) -> None:
    """A frozen group's set makes all others go through local coordinates."""
    ends = []
    for mirror in ("euclidean", "nonnegative"):
        x, y, loss = game_of("euclidean")
        frozen = leaf([1.0]).requires_grad_(False)
        groups = [{"params": [x]}, {"params": [frozen], "mirror": mirror}]
        optimizer = cls(groups, [y], lr=0.02, warm_start=True)
        for _ in range(10):
            optimizer.step(loss())
        ends.append([x.detach().clone(), y.detach().clone()])
    assert all(torch.equal(*pair) for pair in zip(*ends, strict=True))


def test_multiplicative_weights_without_interaction() -> None:
    cost = torch.tensor([0.3, -0.1, 0.2], dtype=torch.float64)
    gain = torch.tensor([[1.0, 0.5, 0.2], [0.1, 0.0, 0.4]], dtype=torch.float64)
    p, q = leaf([0.2, 0.5, 0.3]), leaf([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    expected_p, expected_q = p.detach().clone(), q.detach().clone()
    optimizer = CGD([p], [q], lr=(0.4, 0.7), mirror="simplex")
    for _ in range(100):
        optimizer.step(p @ cost + (q * gain).sum())
        expected_p *= torch.exp(-0.4 * cost)
        expected_q *= torch.exp(0.7 * gain)
        expected_p /= expected_p.sum()
        expected_q /= expected_q.sum(-1, keepdim=True)
        assert_close(p.detach(), expected_p, 1e-12)
        assert_close(q.detach(), expected_q, 1e-12)


def test_multiplicative_weights_on_the_positive_cone() -> None:
    """Without interaction ``w+ = w exp(-eta g)``."""
    slope = torch.tensor([1.0, -2.0], dtype=torch.float64)
    start = torch.tensor([0.2, 3.0], dtype=torch.float64)
    x, y = leaf(start), leaf([1.0])
    optimizer = CGD([x], [y], lr=0.1, mirror="nonnegative")
    optimizer.step(x @ slope - 3 * y.sum())
    assert_close(x.detach(), start * torch.exp(-0.1 * slope))
    assert_close(y.detach().log(), torch.full((1,), -0.3, dtype=torch.float64))


def features(mirror: Any, point: Tensor) -> Tensor:
    """Return what a loss can be linear in without driving an unbounded set to overflow."""
    if mirror == "nonnegative":
        return point.log1p()
    if mirror == "positive-definite":
        one = torch.eye(len(point), dtype=point.dtype)
        return -torch.linalg.inv(one + point).trace().reshape(1)
    return point.reshape(-1)[::2]


def run_in_all_sets(cls: Any, dtype: torch.dtype, lr: float, steps: int, period: int) -> None:
    """Push both players of each set against their boundaries with large steps, there and back."""
    mirrors = [mirror for mirror in POINTS if mirror != "euclidean"]
    players = [[leaf(POINTS[mirror], dtype) for mirror in mirrors] for _ in range(2)]
    groups = (
        [{"params": [point], "mirror": mirror} for mirror, point in zip(mirrors, own, strict=True)]
        for own in players
    )
    optimizer = cls(*groups, lr=lr, solver=ConjugateGradient(rtol=0.0, max_iter=3))
    lowest: dict[Any, Tensor] = {}
    for step in range(steps):
        push = 10.0 if step % (2 * period) < period else -10.0
        x, y = (
            torch.cat([features(*pair) for pair in zip(mirrors, own, strict=True)])
            for own in players
        )
        optimizer.step(push * (x.sum() - y.sum()) + x @ y / 10)
        assert optimizer.last_step.taken
        for own in players:
            for mirror, point in zip(mirrors, own, strict=True):
                if step % 20 == 0:
                    assert_inside(mirror, point.detach())
        if step % period == period - 1:
            for mirror, point in zip(mirrors, players[0], strict=True):
                depth = distance_inside(mirror, point.detach())
                if push > 0:
                    # An entropy gets there exponentially, a log-det as the inverse of time.
                    limit = 1e-2 if mirror == "positive-definite" else 1e-6
                    assert depth < limit, f"{mirror}: {depth}"
                    lowest[mirror] = point.detach().clone()
                else:
                    # And it is left again.
                    assert (point - lowest[mirror]).abs().max() > 0.01, mirror
    assert set(lowest) == set(mirrors)


def distance_inside(mirror: Any, point: Tensor) -> float:
    """Return how far the point is from its nearest boundary, relative to its size."""
    if mirror == "positive-definite":
        return torch.linalg.eigvalsh(point)[0].item()
    if isinstance(mirror, tuple):
        return min((point - mirror[1]).min().item(), (mirror[2] - point).min().item())
    return point.min().item()


@pytest.mark.parametrize(
    ("cls", "dtype"), [(CGD, torch.float32), (ACGD, torch.float64)], ids=["CGD", "ACGD"]
)
def test_iterates_stay_strictly_inside(cls: Any, dtype: torch.dtype) -> None:
    run_in_all_sets(cls, dtype, 1.0, steps=200, period=100)


@pytest.mark.slow
def test_iterates_stay_strictly_inside_for_long() -> None:
    run_in_all_sets(CGD, torch.float64, 1.0, steps=10_000, period=500)


def test_rock_paper_scissors_has_its_equilibrium() -> None:
    game = games.rock_paper_scissors()
    x, y = game.players()
    optimizer = CGD([x], [y], lr=1.0, mirror="simplex")
    for _ in range(300):
        optimizer.step(game.loss(x, y))
    assert game.distance(x, y) < 1e-8


def test_adaptive_steps_share_a_rate_where_entries_share_a_constraint() -> None:
    """With beta = 0 the first step's rate is lr / (|S^T g| + eps), for a row as for a matrix."""
    cost = torch.tensor([0.3, -0.1, 0.2], dtype=torch.float64)
    start = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    norm = ((start * cost**2).sum() - (start @ cost) ** 2).sqrt()
    p, y = leaf(start), leaf([1.0])
    ACGD([p], [y], lr=0.1, beta=0.0, eps=0.0, mirror=("simplex", "euclidean")).step(
        p @ cost - y.square().sum()
    )
    expected = start * (-0.1 / norm * cost).exp()
    assert_close(p.detach(), expected / expected.sum())
    w = leaf(psd(3))
    before, cost = w.detach().clone(), psd(4)
    ACGD([w], [y], lr=0.1, beta=0.0, eps=0.0, mirror=("positive-definite", "euclidean")).step(
        (w * cost).sum() - y.square().sum()
    )
    norm = (before @ cost @ before @ cost).trace().sqrt()
    assert_close(w.detach(), torch.linalg.inv(torch.linalg.inv(before) + 0.1 / norm * cost), 1e-9)
    x = leaf([0.2, 3.0])
    ACGD([x], [y], lr=0.1, beta=0.0, eps=0.0, mirror=("nonnegative", "euclidean")).step(
        x @ torch.tensor([5.0, -7.0]).double() - y.square().sum()
    )
    assert_close(
        x.detach(), torch.tensor([0.2, 3.0]).double() * torch.tensor([-0.1, 0.1]).exp(), 1e-7
    )
