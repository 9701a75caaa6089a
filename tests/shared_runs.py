"""Comparisons of what ranks have returned."""

from typing import Any

import shared_scenarios
import torch
from ranks import Failed
from snapshots import bits
from torch import Tensor

MEMBERS = {2: shared_scenarios.SOME, 4: range(4)}
"""Ranks of the groups of each size."""


def of_ranks(ranks: list[dict[str, Any]], name: str) -> list[Any]:
    """Return what each rank returned from a scenario, which must not have raised."""
    results = [results[name] for results in ranks]
    for result in results:
        assert not isinstance(result, Failed), result.trace
    return results


def assert_same_run(shared: dict[str, Any], alone: dict[str, Any]) -> None:
    assert shared["iterations"] == alone["iterations"]
    torch.testing.assert_close(shared["losses"], alone["losses"], rtol=1e-9, atol=0)
    for ours, theirs in zip(shared["params"], alone["params"], strict=True):
        error = torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs)
        assert error < 1e-9, f"relative error {error:.1e}"


def assert_all_alike(runs: list[list[Tensor]]) -> None:
    for run in runs[1:]:
        for ours, theirs in zip(run, runs[0], strict=True):
            assert torch.equal(bits(ours), bits(theirs))
