"""The benchmarks of tolerances and strengths play their games; stored runs are complete."""

import json

import pytest
import torch

from benchmarks import strengths, tolerances
from benchmarks.strengths import STRENGTHS
from benchmarks.tolerances import SOLVERS, bilinear, frechet, gan


def test_the_frechet_distance_of_gaussians():
    """Of scaled and shifted samples it is known."""
    torch.manual_seed(0)
    samples = torch.randn(500, 3)
    assert abs(frechet(samples, samples)) < 1e-6
    spread = float(samples.double().T.cov().trace())
    # Means 2 apart in each of 3 entries, and deviations of 1 and 3 times those of the samples.
    shifted = 3 * (samples - samples.mean(0)) + samples.mean(0) + 2
    assert abs(frechet(samples, shifted) - (12 + 4 * spread)) < 1e-3


def test_budgets_are_kept_and_strong_interaction_needs_a_tolerance():
    one = bilinear(1.0, SOLVERS["one iteration"], 0, 200.0)
    solved = bilinear(1.0, SOLVERS["0.3"], 0, 200.0)
    assert one["products"] == 2
    assert one["steps"] == 100
    assert solved["score"] < 0.7 * one["score"]
    assert gan("ring", "Wasserstein", SOLVERS["0.1"], 0, 5.0)["steps"] >= 1
    assert gan("ring", "Wasserstein", STRENGTHS["0 lr"], 0, 5.0)["products"] == 0


@pytest.mark.parametrize(
    ("script", "ways"), [(tolerances, SOLVERS), (strengths, STRENGTHS)], ids=["tol", "strength"]
)
def test_stored_runs_are_complete_and_in_every_column(script, ways):
    stored = json.loads(script.RESULT.read_text())
    assert stored["budget"] == tolerances.BUDGET
    for problem, name, _ in script.runs():
        assert len(stored["runs"][problem][name]) >= script.SEEDS
    lines = tolerances.table(stored["runs"], ways).splitlines()
    assert lines[0].count("|") == len(ways) + 2
    # Whatever the order in which they are stored.
    heads, (row,) = lines[0], [line for line in lines if line.startswith("| digits, Wasserstein")]
    for head, cell in list(zip(heads.split("|"), row.split("|"), strict=True))[2:-1]:
        scores = [run["score"] for run in stored["runs"]["digits, Wasserstein"][head.strip()]]
        assert cell.split()[0] == f"{sum(scores) / len(scores):.2g}"
