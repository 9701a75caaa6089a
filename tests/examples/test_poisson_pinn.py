"""The Poisson example: what it computes, and that it resumes."""

import importlib
import json
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = ["--points", "40", "--width", "6"]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    yield importlib.import_module("poisson_pinn")
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_result(example, tmp_path) -> None:
    straight = example.main([*SMALL, "--max-steps", "6", "--out", str(tmp_path / "a")])
    for steps in ("3", "6"):
        resumed = example.main([*SMALL, "--max-steps", steps, "--out", str(tmp_path / "b")])
    assert len(straight) == 4
    for name, record in straight.items():
        other = resumed[name]
        assert record.steps == other.steps == 6
        assert record.curve[-1][1] == other.curve[-1][1]
        for param, twin in zip(
            record.solution.parameters(), other.solution.parameters(), strict=True
        ):
            assert torch.equal(param, twin), name
    data = json.loads((tmp_path / "b" / "curves.json").read_text())
    assert {name: run["steps"] for name, run in data.items()} == dict.fromkeys(straight, 6)
    assert (tmp_path / "b" / "errors.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(example, tmp_path) -> None:
    options = [*SMALL, "--seconds", "0.2", "--methods", "PINN, Adam", "--out", str(tmp_path)]
    first, second = (example.main(options)["PINN, Adam"] for _ in range(2))
    assert first.curve[-1][0] >= 0.2
    assert (first.steps, first.curve) == (second.steps, second.curve)


def test_laplacian_is_that_of_autograd(example) -> None:
    problem = importlib.import_module("poisson_problem")
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    solution = problem.Solution(7, 3)
    points = torch.randn(5, 2, requires_grad=True)
    slopes = torch.autograd.grad(solution(points).sum(), points, create_graph=True)[0]
    expected = sum(
        torch.autograd.grad(slopes[:, i].sum(), points, create_graph=True)[0][:, i]
        for i in range(2)
    )
    torch.testing.assert_close(solution.laplacian(points), expected)


def test_the_solution_leaves_no_residual(example) -> None:
    problem = importlib.import_module("poisson_problem")
    torch.set_default_dtype(torch.float64)

    class Exact:
        def __call__(self, points):
            return problem.exact(points)

        def laplacian(self, points):
            # By central differences of the solution.
            step = 1e-4
            shifts = step * torch.eye(2)
            total = sum(self(points + s) + self(points - s) for s in shifts)
            return (total - 4 * self(points)) / step**2

    residuals = problem.Residuals(100, 40)
    inside, edge = residuals.of(Exact())
    assert inside.abs().max() < 1e-6
    assert edge.abs().max() == 0
    assert bool(((residuals.edge.abs() == 2).any(1)).all())
    # Each side has a quarter of the points.
    for axis in range(2):
        for value in (-2, 2):
            assert int((residuals.edge[:, axis] == value).sum()) == 10
    assert problem.relative_error(Exact(), problem.grid()) == 0
