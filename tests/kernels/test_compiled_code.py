"""Every kernel of the table compiles for every target, as it should; planted faults are caught."""

from pathlib import Path

import pytest
from compiled_table import sample
from compiling import run_compiling, run_each_compiling

from benchmarks.kernels.registry import entries
from benchmarks.kernels.targets import TARGETS

TABLE = Path(__file__).parent.with_name("compiled_table.py")
FAULTS = Path(__file__).with_name("compiled_faults.py")


@pytest.fixture(scope="module")
def programs():
    return run_each_compiling(FAULTS, TABLE)


@pytest.fixture
def some(programs):
    return programs[TABLE.stem]


@pytest.fixture
def found(programs):
    return programs[FAULTS.stem]


@pytest.fixture(scope="module")
def everything():
    return run_compiling(TABLE, "all")


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


def test_launches_are_recorded_as_they_were_specialised(found):
    unaligned, one = found["launches"]
    assert unaligned["name"] == one["name"] == "copy_kernel"
    assert unaligned["grid"] == [4, 1, 1]
    assert unaligned["num_warps"] == 2
    assert unaligned["signature"]["factor"] == "fp64"
    assert unaligned["divisible"] == ["n", "x_ptr"]
    assert one["divisible"] == ["out_ptr", "x_ptr"]
    # Arguments that are 1 are compiled in.
    assert one["constants"] == {"n": 1, "BLOCK": 32}


def test_what_only_a_launch_refuses_is_refused(found):
    assert "num_wraps" in found["misspelt"]
    assert "CompilationError" in found["shape"]
    assert "OutOfResources" in found["shared"]
    assert found["after errors"] == 2


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("unaligned", "loads 4 bytes at once, not 16"),
        ("no matrix", "uses no matrix instruction"),
        ("atomic", "uses atomic operations"),
        ("spilling", "spills registers"),
        ("shared", "bytes of shared memory of"),
    ],
    ids=lambda value: value.split()[0],
)
def test_faults_in_compiled_code_are_named(found, target, fault, complaint):
    if (fault, target) == ("shared", "gfx942"):
        complaint = "spills registers"  # Its pipelines do not grow with the stages.
    assert any(complaint in line for line in found[f"{fault} {target}"])
    assert found[f"right {target}"] == []
