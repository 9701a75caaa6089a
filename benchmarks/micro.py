"""Micro-benchmarks: products, solvers, vector part, set-up, whole steps.

Run ``make bench``, or ``pytest benchmarks/micro.py`` with the options of pytest-benchmark, such as
``--benchmark-compare``. Each name says what is timed; the size is the number of parameters of both
players together.
"""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from benchmarks.networks import num_parameters
from benchmarks.step_scaling import fully_connected
from compopt import ACGD, CGD, GMRES, ConjugateGradient
from compopt.derivatives import differentiate
from compopt.game import Game
from compopt.kernels import adaptive_setup_
from compopt.operators import CoupledOperator, LinearOperator, TwoPlayerOperator
from compopt.solvers import solve_coupled

WIDTHS = {64: "4e4", 512: "2e6"}
BATCH_SIZE = 64


class TwoWeights(CoupledOperator):
    """The identity plus a rank-one Gram matrix: products cost little compared to vectors."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, torch.float32, torch.device("cpu"))
        self.is_positive_definite = True
        self.weight = torch.linspace(0.1, 0.3, size)

    def factor(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return F @ inner."""
        return torch.mul(self.weight, inner, out=out)

    def response(self, vector: Tensor, out: Tensor | None = None) -> Tensor:
        """Return G @ vector, G = F^T."""
        return torch.mul(self.weight, vector, out=out)

    def scale_inner(self, inner: Tensor, out: Tensor | None = None) -> Tensor:
        """Return H @ inner."""
        return inner if out is None else out.copy_(inner)


class Unsymmetric(LinearOperator):
    """A diagonal plus a shift, for solvers that do not need symmetry."""

    def __init__(self, size: int) -> None:
        super().__init__(size, torch.float32, torch.device("cpu"))
        self.diagonal = torch.linspace(1.0, 2.0, size)

    def matvec(self, vector: Tensor) -> Tensor:
        """Return the product with a vector [n]."""
        return self.diagonal * vector + 0.1 * vector.roll(1)


@pytest.fixture(params=WIDTHS, ids=WIDTHS.values())
def play(request: pytest.FixtureRequest):
    return fully_connected(request.param, BATCH_SIZE)


def parts(play) -> tuple[list[nn.Parameter], list[nn.Parameter], Tensor]:
    loss = next(play.losses(seed=1))
    return list(play.min_player.parameters()), list(play.max_player.parameters()), loss


def test_first_order_gradients_with_graph(benchmark: BenchmarkFixture, play) -> None:
    losses = play.losses(seed=1)
    params = {
        "min": list(play.min_player.parameters()),
        "max": list(play.max_player.parameters()),
    }
    benchmark(lambda: differentiate(Game(next(losses)), params))


@pytest.mark.parametrize("player", ["min", "max"])
def test_mixed_product(benchmark: BenchmarkFixture, play, player) -> None:
    min_params, max_params, loss = parts(play)
    mixed = differentiate(Game(loss), {"min": min_params, "max": max_params})
    vector = torch.randn(mixed.layouts["max" if player == "min" else "min"].numel)
    benchmark(lambda: mixed.mixed_product(player, vector))


def test_operator_product(benchmark: BenchmarkFixture, play) -> None:
    min_params, max_params, loss = parts(play)
    mixed = differentiate(Game(loss), {"min": min_params, "max": max_params})
    sizes = (torch.full((mixed.layouts[player].numel,), 1e-4) for player in ("max", "min"))
    operator = TwoPlayerOperator(mixed, "max", *sizes)
    vector = torch.randn(mixed.layouts["max"].numel)
    benchmark(lambda: operator.matvec(vector))


@pytest.mark.parametrize("size", [10**4, 10**6, 10**7])
def test_vector_part_of_an_iteration(benchmark: BenchmarkFixture, size) -> None:
    operator, rhs, coupled = TwoWeights(size), torch.randn(size), torch.randn(size)
    solver = ConjugateGradient(rtol=0.0, max_iter=4)
    benchmark.extra_info["iterations"] = 4
    benchmark(lambda: solve_coupled(solver, operator, rhs.clone(), coupled))


@pytest.mark.parametrize("size", [10**4, 10**6])
def test_gmres(benchmark: BenchmarkFixture, size) -> None:
    operator, rhs = Unsymmetric(size), torch.randn(size)
    benchmark.extra_info["iterations"] = 8
    benchmark(lambda: GMRES(rtol=0.0, max_iter=8).solve(operator, rhs))


@pytest.mark.parametrize("size", [10**4, 10**6, 10**7])
def test_set_up_of_adaptive_steps(benchmark: BenchmarkFixture, size) -> None:
    average, grad, out = torch.rand(size), torch.randn(size), torch.empty(size)
    benchmark(lambda: adaptive_setup_(average, grad, 0.99, 1e-4, 1e-5, out))


@pytest.mark.parametrize("optimizer", [CGD, ACGD])
def test_step_of_a_game_of_two_numbers(benchmark: BenchmarkFixture, optimizer) -> None:
    x, y = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    stepper = optimizer([x], [y], lr=0.01)
    benchmark(lambda: stepper.step((x * y).sum()))


@pytest.mark.parametrize("max_iter", [1, 2, 4])
def test_step(benchmark: BenchmarkFixture, play, max_iter) -> None:
    losses = play.losses(seed=1)
    solver = ConjugateGradient(rtol=0.0, max_iter=max_iter)
    stepper = ACGD(play.min_player.parameters(), play.max_player.parameters(), solver=solver)
    benchmark.extra_info["parameters"] = num_parameters(play.min_player) + num_parameters(
        play.max_player
    )
    benchmark(lambda: stepper.step(next(losses)))


def test_step_of_adam(benchmark: BenchmarkFixture, play) -> None:
    losses = play.losses(seed=1)
    players = (
        torch.optim.Adam(play.min_player.parameters()),
        torch.optim.Adam(play.max_player.parameters(), maximize=True),
    )

    def step() -> None:
        for player in players:
            player.zero_grad()
        next(losses).backward()
        for player in players:
            player.step()

    benchmark(step)
