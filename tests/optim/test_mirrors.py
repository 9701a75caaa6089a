"""Competitive mirror descent: closed forms, and iterates that stay strictly inside their sets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from snapshots import assert_same_bits, snapshot
from torch import Tensor
from torch.autograd.functional import hessian

from compopt import ACGD, ACMD, CGD, CMD, GMRES, ConjugateGradient, DirectSolver, StepWarning, games
from compopt.optim.mirrors import check_feasible, make_chart

BOX = ("box", -1.0, 2.0)


def psd(seed: int, size: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return root @ root.T + torch.eye(size, dtype=torch.float64)


def leaf(values: Tensor | list[Any], dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.as_tensor(values, dtype=dtype).clone().requires_grad_()


# A point of each set.
POINTS: dict[Any, Tensor] = {
    "euclidean": torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64),
    "nonnegative": torch.tensor([0.5, 2.0, 1e-3], dtype=torch.float64),
    "simplex": torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64),
    BOX: torch.tensor([0.5, -0.9, 1.99], dtype=torch.float64),
    "positive-definite": psd(0),
}

# The mirror maps themselves, of which tests take derivatives.
POTENTIALS: dict[Any, Callable[[Tensor], Tensor]] = {
    "euclidean": lambda w: w.square().sum() / 2,
    "nonnegative": lambda w: (w * w.log()).sum(),
    "simplex": lambda w: (w * w.log()).sum(),
    BOX: lambda w: ((w + 1) * (w + 1).log() + (2 - w) * (2 - w).log()).sum(),
    "positive-definite": lambda w: -torch.logdet(w),
}

each_mirror = pytest.mark.parametrize("mirror", POINTS, ids=lambda m: m if m != BOX else "box")
each_set = pytest.mark.parametrize(
    "mirror", [m for m in POINTS if m != "euclidean"], ids=lambda m: m if m != BOX else "box"
)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert error < tolerance, f"relative error {error:.2e}: {actual} is not {expected}"


def assert_inside(mirror: Any, *points: Tensor) -> None:
    """Raise unless the points lie strictly inside the set, by tests of their own."""
    for point in points:
        assert torch.isfinite(point).all()
        if mirror == "nonnegative":
            assert (point > 0).all()
        elif mirror == "simplex":
            assert (point > 0).all()
            assert (point.sum(-1) - 1).abs().max() < 1e-6
        elif mirror == "positive-definite":
            assert torch.equal(point, point.mT)
            assert not torch.linalg.cholesky_ex(point).info.any()
        elif mirror != "euclidean":
            assert ((point > mirror[1]) & (point < mirror[2])).all()


def tangent(mirror: Any, shape: torch.Size, seed: int) -> Tensor:
    """Return a random move that keeps to the linear constraints of the set."""
    generator = torch.Generator().manual_seed(seed)
    move = 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    if mirror == "simplex":
        move = move - move.mean(-1, keepdim=True)
    return (move + move.mT) / 2 if mirror == "positive-definite" else move


@each_set
def test_charts_factor_the_inverse_metric(mirror: Any) -> None:
    """``S S^T`` solves ``P d = g`` on the moves that the set allows."""
    point = POINTS[mirror]
    chart = make_chart(mirror, point)
    metric = hessian(POTENTIALS[mirror], point).reshape(point.numel(), -1)
    move = tangent(mirror, point.shape, 1)
    gradient = (metric @ move.reshape(-1)).reshape(point.shape)
    assert_close(chart.push(chart.pull(gradient)), move)
    u, v = tangent("euclidean", point.shape, 2), tangent("euclidean", point.shape, 3)
    assert_close((chart.push(u) * v).sum(), (u * chart.pull(v)).sum())


@each_set
def test_moves_follow_the_dual_geometry(mirror: Any) -> None:
    point, potential = POINTS[mirror], POTENTIALS[mirror]
    chart = make_chart(mirror, point)
    local = 0.3 * chart.pull(tangent("euclidean", point.shape, 4))
    moved = chart.moved(local)
    assert_inside(mirror, moved)
    dual = torch.func.grad(potential)
    metric = hessian(potential, point).reshape(point.numel(), -1)
    expected = dual(point) + (metric @ chart.push(local).reshape(-1)).reshape(point.shape)
    actual = dual(moved)
    if mirror == "simplex":
        # Along the normal of the simplex the dual point is not determined.
        actual, expected = (d - d.mean(-1, keepdim=True) for d in (actual, expected))
    assert_close(actual, expected, 1e-9)


@each_set
def test_no_move_leaves_every_bit_in_place(mirror: Any) -> None:
    point = POINTS[mirror]
    assert torch.equal(make_chart(mirror, point).moved(torch.zeros_like(point)), point)


def test_dual_steps_beyond_the_domain_are_continued_smoothly() -> None:
    chart = make_chart("positive-definite", torch.eye(1, dtype=torch.float64))

    def moved(value: float) -> float:
        return chart.moved(torch.tensor([[value]], dtype=torch.float64)).item()

    assert moved(0.25) == pytest.approx(1 / 0.75, rel=1e-13)
    assert moved(-3.0) == pytest.approx(1 / 4, rel=1e-13)
    assert moved(0.5 + 1e-7) - moved(0.5 - 1e-7) == pytest.approx(4 * 2e-7, rel=1e-5)
    assert moved(1.0) == pytest.approx(2 * torch.tensor(1.0).double().exp().item(), rel=1e-13)


def game_of(mirror: Any, seed: int = 0) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    """Return a player in the set of ``mirror``, a Euclidean one, and a loss that couples them."""
    x, y = leaf(POINTS[mirror]), leaf([0.3, -0.4])
    generator = torch.Generator().manual_seed(seed)
    coupling = torch.randn(x.numel(), 2, generator=generator, dtype=torch.float64)
    weights = torch.randn(x.shape, generator=generator, dtype=torch.float64)

    def loss() -> Tensor:
        return x.reshape(-1) @ coupling @ y + (weights * x.square()).sum() - y.square().sum()

    return x, y, loss


@each_mirror
@pytest.mark.parametrize("solve_for", ["min", "max"])
@pytest.mark.parametrize("general", [False, True], ids=["zero-sum", "pair"])
def test_step_is_the_published_one(mirror: Any, solve_for: str, general: bool) -> None:
    """``P d_x / eta = -(g_x + D d_y)``, ``d_y = eta (g_y + D^T d_x)`` by one dense solve."""
    x, y, loss = game_of(mirror)
    # Of a matrix the move must stay where the dual step exists.
    eta = 0.0005 if mirror == "positive-definite" else 0.05
    solver = GMRES(rtol=1e-14, max_iter=40) if general else DirectSolver()
    optimizer = CMD([x], [y], lr=eta, mirror=(mirror, "euclidean"), solver=solver)
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


@pytest.mark.parametrize("pair", [(CMD, CGD), (ACMD, ACGD)], ids=["CMD", "ACMD"])
def test_quadratic_map_gives_cgd_bit_for_bit(pair: tuple[Any, Any]) -> None:
    ends = []
    for cls in pair:
        x, y, loss = game_of("euclidean")
        optimizer = cls([x], [y], lr=0.02, warm_start=True)
        for _ in range(10):
            optimizer.step(loss())
        ends.append(snapshot(optimizer))
    assert_same_bits(*ends)


def test_multiplicative_weights_without_interaction() -> None:
    cost = torch.tensor([0.3, -0.1, 0.2], dtype=torch.float64)
    gain = torch.tensor([[1.0, 0.5, 0.2], [0.1, 0.0, 0.4]], dtype=torch.float64)
    p, q = leaf([0.2, 0.5, 0.3]), leaf([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    expected_p, expected_q = p.detach().clone(), q.detach().clone()
    optimizer = CMD([p], [q], lr=(0.4, 0.7), mirror="simplex")
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
    optimizer = CMD([x], [y], lr=0.1, mirror="nonnegative")
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("cls", "lr"), [(CMD, 1.0), (ACMD, 1.0)], ids=["CMD", "ACMD"])
def test_iterates_stay_strictly_inside(cls: Any, lr: float, dtype: torch.dtype) -> None:
    run_in_all_sets(cls, dtype, lr, steps=400, period=100)


@pytest.mark.slow
def test_iterates_stay_strictly_inside_for_long() -> None:
    run_in_all_sets(CMD, torch.float64, 1.0, steps=10_000, period=500)


def test_rock_paper_scissors_has_its_equilibrium() -> None:
    game = games.rock_paper_scissors()
    x, y = game.players()
    optimizer = CMD([x], [y], lr=1.0, mirror="simplex")
    for _ in range(300):
        optimizer.step(game.loss(x, y))
    assert game.distance(x, y) < 1e-8


def test_adaptive_steps_share_a_rate_where_entries_share_a_constraint() -> None:
    """With beta = 0 the first step's rate is lr / (|S^T g| + eps), for a row as for a matrix."""
    cost = torch.tensor([0.3, -0.1, 0.2], dtype=torch.float64)
    start = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    norm = ((start * cost**2).sum() - (start @ cost) ** 2).sqrt()
    p, y = leaf(start), leaf([1.0])
    ACMD([p], [y], lr=0.1, beta=0.0, eps=0.0, mirror=("simplex", "euclidean")).step(
        p @ cost - y.square().sum()
    )
    expected = start * (-0.1 / norm * cost).exp()
    assert_close(p.detach(), expected / expected.sum())
    w = leaf(psd(3))
    before, cost = w.detach().clone(), psd(4)
    ACMD([w], [y], lr=0.1, beta=0.0, eps=0.0, mirror=("positive-definite", "euclidean")).step(
        (w * cost).sum() - y.square().sum()
    )
    norm = (before @ cost @ before @ cost).trace().sqrt()
    assert_close(w.detach(), torch.linalg.inv(torch.linalg.inv(before) + 0.1 / norm * cost), 1e-9)
    x = leaf([0.2, 3.0])
    ACMD([x], [y], lr=0.1, beta=0.0, eps=0.0, mirror=("nonnegative", "euclidean")).step(
        x @ torch.tensor([5.0, -7.0]).double() - y.square().sum()
    )
    assert_close(
        x.detach(), torch.tensor([0.2, 3.0]).double() * torch.tensor([-0.1, 0.1]).exp(), 1e-7
    )


BAD_START = {
    "nonnegative": [0.0, 1.0],
    "simplex": [0.5, 0.6],
    BOX: [0.0, 2.0],
    "positive-definite": [[1.0, 0.0], [0.0, -1.0]],
}


@each_set
def test_infeasible_parameters_are_refused(mirror: Any) -> None:
    x, y = leaf(BAD_START[mirror]), leaf([0.0])
    with pytest.raises(ValueError, match=r"`mirror`.*strictly inside its set"):
        CMD([x], [y], mirror=(mirror, "euclidean"))
    optimizer = CMD([y], [leaf([0.0])])
    with pytest.raises(ValueError, match=r"`mirror`.*strictly inside its set"):
        optimizer.add_param_group({"params": [x], "player": "max", "mirror": mirror})
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize(
    ("mirror", "values", "dtype", "match"),
    [
        ("nonnegative", [1.0, 2.0], torch.bfloat16, "float32 or float64, got torch.bfloat16"),
        ("positive-definite", [1.0, 2.0], torch.float64, r"square matrices.*\(2,\)"),
        ("positive-definite", [[1.0, 0.5], [0.0, 1.0]], torch.float64, "strictly inside"),
        ("simplex", 1.0, torch.float64, "without dimensions"),
        ("nonnegative", [float("inf")], torch.float64, "strictly inside"),
    ],
)
def test_parameters_that_do_not_fit(
    mirror: Any, values: Any, dtype: torch.dtype, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        check_feasible(mirror, torch.tensor(values, dtype=dtype))


@each_set
def test_other_options_that_a_set_refuses(mirror: Any) -> None:
    x, y = leaf(POINTS[mirror]), leaf([0.0])
    with pytest.raises(ValueError, match="`weight_decay` must be 0"):
        CMD([x], [y], mirror=(mirror, "euclidean"), weight_decay=0.1)
    if mirror == "positive-definite":
        solver = GMRES(rtol=0.0, max_iter=2)
        with pytest.raises(ValueError, match="`capturable` forbids `mirror`"):
            CMD([x], [y], mirror=(mirror, "euclidean"), capturable=True, solver=solver)


@each_set
def test_parameters_taken_outside_do_not_move(mirror: Any) -> None:
    if mirror == "simplex":
        bad = torch.tensor([[0.5, -0.3, 0.8], [0.1, 0.1, 0.8]], dtype=torch.float64)
    elif mirror == "positive-definite":
        bad = torch.diag(torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64))
    else:
        bad = torch.full((3,), -5.0, dtype=torch.float64)
    x, y, loss = game_of(mirror)
    optimizer = CMD([x], [y], lr=0.1, mirror=(mirror, "euclidean"))
    with torch.no_grad():
        x.copy_(bad)
    before = snapshot(optimizer)
    with pytest.warns(StepWarning, match="not taken"):
        optimizer.step(loss())
    assert_same_bits(snapshot(optimizer), before)


@each_set
def test_two_phase_form_with_a_penalty(mirror: Any) -> None:
    ends = []
    for two_phases in (False, True):
        x, y, loss = game_of(mirror)
        optimizer = ACMD([x], [y], lr=0.01, mirror=(mirror, "euclidean"), max_grad_norm=0.5)
        for _ in range(3):
            if two_phases:
                optimizer.backward(loss(), min_penalty=x.square().sum())
                optimizer.step()
            else:
                optimizer.step(loss(), min_penalty=x.square().sum())
        ends.append(snapshot(optimizer))
    assert_same_bits(*ends)


@each_set
def test_state_dict_resumes_bit_for_bit(mirror: Any) -> None:
    x, y, loss = game_of(mirror)
    options = {"lr": 0.02, "mirror": (mirror, "euclidean"), "warm_start": True}
    optimizer = ACMD([x], [y], **options)
    for _ in range(3):
        optimizer.step(loss())
    twin_x, twin_y, twin_loss = game_of(mirror)
    with torch.no_grad():
        twin_x.copy_(x)
        twin_y.copy_(y)
    twin = ACMD([twin_x], [twin_y], **options)
    twin.load_state_dict(optimizer.state_dict())
    assert twin.param_groups[0]["mirror"] == mirror
    for _ in range(3):
        optimizer.step(loss())
        twin.step(twin_loss())
    assert_same_bits(snapshot(twin), snapshot(optimizer))
