"""The dry run and the look at compiled code catch planted faults."""

from pathlib import Path

import pytest
from compiling import run_compiling

TARGETS = ("sm_80", "sm_100", "gfx942")


@pytest.fixture(scope="module")
def found():
    return run_compiling(Path(__file__).with_name("compiled_faults.py"))


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


@pytest.mark.parametrize("target", TARGETS)
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
