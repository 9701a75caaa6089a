"""How many launches the vector part of a step takes, counted by Triton's own launch path."""

from pathlib import Path

import pytest
from compiling import run_compiling


@pytest.fixture(scope="module")
def found():
    return run_compiling(Path(__file__).with_name("launches.py"))


def test_an_iteration_takes_four_launches(found):
    assert found["numbers"]["one_iteration"] == {
        "partial_dot_kernel": 1,
        "cg_update_kernel": 1,
        "cg_scalars_kernel": 1,
        "cg_direction_kernel": 1,
    }


def test_the_set_up_of_both_players_takes_two_launches(found):
    assert found["numbers"]["setup"] == {"adaptive_setup_kernel": 2}


def test_a_product_takes_one_launch_before_and_one_after_autograd(found):
    assert found["numbers"]["product"] == {"scatter_kernel": 1, "gather_kernel": 1}


def test_launches_are_specialised_on_aligned_vectors(found):
    for name, launch in found["vectors"].items():
        assert launch["aligned"], name


def test_scalars_of_the_set_up_are_passed_in_float64(found):
    signature = found["vectors"]["adaptive_setup_kernel"]["signature"]
    assert {signature[name] for name in ("beta", "one_minus_beta", "rate", "eps")} == {"fp64"}


def test_triton_without_a_device_is_refused(found):
    assert found["without a driver"] == (
        'The backend "triton" was requested, but Triton has no kernels for tensors on cpu. '
        'Move them to a CUDA device or use backend="torch".'
    )
