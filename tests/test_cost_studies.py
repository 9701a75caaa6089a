"""The studies of what could make a step cheaper measure what they say."""

import json

import pytest
import torch
from torch import nn

from benchmarks import product_forms, solver_study
from benchmarks.product_forms import Direction
from benchmarks.solve_ways import Diagonal, Recycled, preconditioned
from benchmarks.workloads import Play

SIZE = 12


@pytest.fixture
def operator() -> torch.Tensor:
    """An identity plus a Gram matrix of rank 3."""
    factor = torch.randn(SIZE, 3)
    return torch.eye(SIZE) + factor @ factor.T


def solve(operator, preconditioner, rtol=1e-5):
    rhs = torch.randn(SIZE)
    value, num_iter = preconditioned(lambda v: operator @ v, rhs, rtol, preconditioner)
    torch.testing.assert_close(value, torch.linalg.solve(operator, rhs), rtol=1e-3, atol=1e-4)
    return num_iter


def test_recycled_directions_solve_the_same_system_at_once(operator):
    recycled = Recycled(3)
    first = solve(operator, recycled)
    assert first == 4
    values = torch.linalg.eigvalsh(operator)[-3:]
    torch.testing.assert_close(recycled.values, values, rtol=1e-3, atol=1e-3)
    assert solve(operator, recycled) <= 2


def test_an_estimated_diagonal_solves_a_diagonal_system_at_once():
    diagonal = Diagonal()
    operator = torch.diag(torch.linspace(1, 5, SIZE))
    assert solve(operator, diagonal) > 5
    assert solve(operator, diagonal) == 1


def small_play() -> Play:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4))
    critic = nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 1))

    def draw(random: torch.Generator):
        return torch.randn(8, 4, generator=random), torch.randn(8, 3, generator=random)

    return Play(generator, critic, draw, lambda batch: batch[0].sum())


@pytest.mark.parametrize("player", ["min", pytest.param("max", marks=pytest.mark.slow)])
def test_all_forms_give_one_product(player):
    direction = Direction(small_play(), player, torch.float64)
    makers = (direction.twice, direction.linearized, direction.forward_over_reverse)
    expected, *others = (make().product() for make in makers)
    assert sum(float(value.norm()) for value in expected.values()) > 0
    for other in others:
        for name, value in expected.items():
            torch.testing.assert_close(other[name], value)


@pytest.mark.slow
def test_forms_are_measured():
    rows = product_forms.measure(small_play, "max", rounds=1, compiles=False)
    names = [row["name"] for row in rows]
    twice = "differentiated twice"
    assert names == [twice, f"{twice}, channels last", "linearized", "forward over reverse"]
    assert all(row["product"] > 0 and row["error"] < 1e-4 for row in rows)
    assert rows[2]["set_up"] > 0


@pytest.mark.slow
def test_ways_of_solving_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(solver_study, "WIDTH", 1 / 16)
    monkeypatch.setattr(solver_study, "BATCH_SIZE", 8)
    images = torch.randint(256, (32, 3, 32, 32), dtype=torch.uint8)
    found = solver_study.study(images, "wgan", 1e-3, steps=4, studied=2)
    ways = found["ways"]
    cold = ways["0.01 | cold, last residual computed"]
    exact = ways["1e-06 | cold, last residual computed"]
    assert 3 <= cold["mean_products"] < exact["mean_products"]
    assert 1e-5 < cold["median_error"] < 0.05
    predicted = ways["0.01 | cold, last residual predicted"]
    assert predicted["mean_products"] <= cold["mean_products"]
    # The first residual of a first guess takes one product more.
    warm = ways["0.01 | from the last move, last residual computed"]
    assert warm["mean_products"] % 2 == (cold["mean_products"] + 1) % 2
    assert ways["1e-06 | 16 Ritz vectors recycled"]["median_error"] < 1e-4
    assert ways["1e-06 | diagonal estimated"]["median_error"] < 1e-4
    assert ways["1e-06 | mixed block from half of the batch"]["median_error"] > 1e-4
    noise = ways["1e-06 | exact, on another batch"]["median_error"]
    assert noise > cold["median_error"]
    assert 0 < found["figures"]["gradients of two batches apart"] < 1
    settings = {f"setting {index}": found for index in range(4)}
    solver_study.draw(settings, tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 10_000
    json.dumps(found)
