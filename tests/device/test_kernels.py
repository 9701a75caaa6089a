"""Every kernel of the table gives on a device what its plain form gives in float64."""

from contextlib import nullcontext

import pytest
import torch

pytest.importorskip("triton")

from strict_interpreter import strict

from benchmarks.kernels.checks import error
from benchmarks.kernels.registry import entries

pytestmark = pytest.mark.gpu

SIZES = {"few": (1000, 20), "odd": (2**17 + 1001, 131)}
"""Of vectors and images; of matrices."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_an_entry_of_the_table(entry, size, device):
    if device.type == "cpu" and size != "few":
        pytest.skip("Interpreted kernels are slow.")
    elements, rows = SIZES[size]
    # Interpreted as they are, products of bfloat16 are those of their bits.
    multiplies = device.type == "cpu" and "PRECISION" in entry.constexprs
    with torch.random.fork_rng(), strict() if multiplies else nullcontext():
        wrong = error(entry, elements if entry.size_means.startswith("elem") else rows, device)
    assert wrong is None
