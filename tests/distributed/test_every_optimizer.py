"""Every optimizer on two ranks takes the steps of one process that has the whole batch."""

import pytest
import torch
from ranks import run_ranks
from shared_optimizers import CASES, SHARING, STEPS, run
from shared_runs import of_ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(SHARING, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(
    ("name", "form", "kind"), [(name, form, kind.__name__) for name, form, kind in CASES]
)
def test_ranks_equal_one_process(ranks, name, form, kind):
    losses, params, _ = run(name, form, None, slice(None))
    first, second = (result[name, form, kind] for result in of_ranks(ranks, "every_optimizer"))
    for shared in (first, second):
        torch.testing.assert_close(shared["losses"], losses, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(shared["params"], params, rtol=1e-9, atol=1e-11)
    assert all(torch.equal(*pair) for pair in zip(first["params"], second["params"], strict=True))
    assert first["collectives"] == second["collectives"] > 0


# Collectives of a zero-sum step: the roll call, the gradients at each point, products and gradients
# of others' losses, and whether the step is finite.
COLLECTIVES = {
    "OGDA": 1 + 1 + 1,
    "ExtraGradient": 1 + 2 + 1,
    "ExtraAdam": 1 + 2 + 1,
    "ConsensusOptimization": 1 + 1 + 1 + 1,
    "LCGD": 1 + 1 + 2 + 1,
    "LEAD": 1 + 1 + 2 + 1,
    "LOLA": 1 + 1 + 2 + 2 + 2 + 1,
    "SimultaneousDescentAscent": 1 + 1 + 1,
    "AlternatingDescentAscent": 1 + 2 + 2,
}
# The first step of those that take products: products with the gradients, and whether all are zero.
LOOKS = dict.fromkeys(("ConsensusOptimization", "LCGD", "LEAD", "LOLA"), 2 + 1)


@pytest.mark.parametrize("name", COLLECTIVES)
def test_collectives_are_counted(ranks, name):
    for result in of_ranks(ranks, "every_optimizer"):
        found = result[name, "zero-sum", "Replicated"]["collectives"]
        assert found == COLLECTIVES[name] * STEPS + LOOKS.get(name, 0)
