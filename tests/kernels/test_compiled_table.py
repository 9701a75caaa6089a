"""Every kernel of the table compiles for every target, as it should."""

from pathlib import Path

import pytest
from compiled_table import sample
from compiling import run_compiling

from benchmarks.kernels.registry import entries
from benchmarks.kernels.targets import TARGETS

PROGRAM = Path(__file__).parent.with_name("compiled_table.py")


@pytest.fixture(scope="module")
def some():
    return run_compiling(PROGRAM, "sample")


@pytest.fixture(scope="module")
def everything():
    return run_compiling(PROGRAM)


@pytest.mark.parametrize(
    ("entry", "target"),
    [pytest.param(*case, id=f"{case[0].name}-{case[1].name}") for case in sample()],
)
def test_compiled_code_is_as_declared(some, entry, target):
    assert some[f"{entry.name} {target.name}"] == []


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_compiled_code_of_all_dtypes_and_targets_is_as_declared(everything, entry, target):
    if target in entry.skipped:
        assert f"{entry.name} {target}" not in everything
    else:
        assert everything[f"{entry.name} {target}"] == []
