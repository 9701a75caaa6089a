"""On which device kernels are launched, and what makes Triton load another form of one."""

from pathlib import Path

import pytest
from compiling import run_compiling


@pytest.fixture(scope="module")
def found():
    return run_compiling(Path(__file__).with_name("launch_conditions.py"))


def test_the_device_of_the_tensors_is_current_at_a_launch_and_the_former_one_after_it(found):
    """At a launch and after it, for tensors of the current device and another; after an error."""
    assert found["devices"] == [0, 0, 1, 0, 0]


def test_an_iteration_is_one_form_of_each_kernel_however_many_partial_sums_come(found):
    """What is loaded in a warm-up is all that a capture needs: it can load nothing."""
    several, one, sixteen = found["iterations"]
    assert [launch["name"] for launch in several] == ["cg_update_kernel", "cg_scalars_kernel"]
    assert several == one == sixteen


def test_rows_without_end_fit_the_grid_of_a_linear_layer(found):
    # Triton's y and z end at 65,535.
    assert found["tall grid"] == [65536, 1, 1]
