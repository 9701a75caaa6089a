"""Every kernel of the table compiles for every target, as it should."""

from pathlib import Path

import pytest
from compiled_table import one_of_each
from compiling import run_compiling

from benchmarks.kernels.registry import entries
from benchmarks.kernels.targets import TARGETS

PROGRAM = Path(__file__).parent.with_name("compiled_table.py")
ONE_OF_EACH = one_of_each()
ALL_TARGETS = pytest.mark.parametrize("target", TARGETS)


@pytest.fixture(scope="module")
def one_compiled():
    return run_compiling(PROGRAM, "one")


@pytest.fixture(scope="module")
def everything():
    return run_compiling(PROGRAM)


def check(found, entry, target):
    if target in entry.skipped:
        assert f"{entry.name} {target}" not in found
    else:
        assert found[f"{entry.name} {target}"] == []


@ALL_TARGETS
@pytest.mark.parametrize("entry", ONE_OF_EACH, ids=lambda entry: entry.name)
def test_compiled_code_is_as_declared(one_compiled, entry, target):
    check(one_compiled, entry, target)


@pytest.mark.slow
@ALL_TARGETS
@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_compiled_code_of_all_dtypes_is_as_declared(everything, entry, target):
    check(everything, entry, target)
