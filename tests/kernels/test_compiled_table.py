"""Every kernel of the table compiles for every target, as it should."""

from pathlib import Path

import pytest
from compiling import run_compiling

from benchmarks.kernels.targets import TARGETS
from compopt.kernels.registry import entries

PROGRAM = Path(__file__).with_name("compiled_table.py")
TIMED = [entry for entry in entries() if entry.operation is not None]
ALL_TARGETS = pytest.mark.parametrize("target", TARGETS)


@pytest.fixture(scope="module")
def timed():
    return run_compiling(PROGRAM, "timed")


@pytest.fixture(scope="module")
def everything():
    return run_compiling(PROGRAM)


def check(found, entry, target):
    if target in entry.skipped:
        assert f"{entry.name} {target}" not in found
    else:
        assert found[f"{entry.name} {target}"] == []


@ALL_TARGETS
@pytest.mark.parametrize("entry", TIMED, ids=lambda entry: entry.name)
def test_compiled_code_is_as_declared(timed, entry, target):
    check(timed, entry, target)


@pytest.mark.slow
@ALL_TARGETS
@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_compiled_code_of_all_dtypes_is_as_declared(everything, entry, target):
    check(everything, entry, target)
