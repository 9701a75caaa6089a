"""What is launched where, in an iteration and in whole steps, counted where Triton launches."""

from collections import Counter
from pathlib import Path

import pytest
from compiling import run_each_compiling

PROGRAMS = ("launches", "launch_conditions", "step_launches")
FORMS = pytest.mark.parametrize("form", ["plain min", "plain max", "captured min", "captured max"])


@pytest.fixture(scope="module")
def programs():
    return run_each_compiling(*(Path(__file__).with_name(f"{name}.py") for name in PROGRAMS))


@pytest.fixture
def parts(programs):
    return programs["launches"]


@pytest.fixture
def conditions(programs):
    return programs["launch_conditions"]


@pytest.fixture
def steps(programs):
    return programs["step_launches"]


def test_an_iteration_takes_four_launches(parts):
    assert parts["numbers"]["one_iteration"] == {
        "partial_dot_kernel": 1,
        "cg_update_kernel": 1,
        "cg_scalars_kernel": 1,
        "cg_direction_kernel": 1,
    }


def test_the_set_up_of_both_players_takes_two_launches(parts):
    assert parts["numbers"]["setup"] == {"adaptive_setup_kernel": 2}


def test_a_product_takes_one_launch_before_and_one_after_autograd(parts):
    assert parts["numbers"]["product"] == {"scatter_kernel": 1, "gather_kernel": 1}


def test_launches_are_specialised_on_aligned_vectors(parts):
    for name, launch in parts["vectors"].items():
        assert launch["aligned"], name


def test_scalars_of_the_set_up_are_passed_in_float64(parts):
    signature = parts["vectors"]["adaptive_setup_kernel"]["signature"]
    assert {signature[name] for name in ("beta", "one_minus_beta", "rate", "eps")} == {"fp64"}


def test_triton_without_a_device_is_refused(parts):
    assert parts["without a driver"] == (
        'The backend "triton" was requested, but Triton has no kernels for tensors on cpu. '
        'Move them to a CUDA device or use backend="torch".'
    )


def test_the_device_of_the_tensors_is_current_at_a_launch_and_the_former_one_after_it(conditions):
    """At a launch and after it, for tensors of the current device and another; after an error."""
    assert conditions["devices"] == [0, 0, 1, 0, 0]


def test_an_iteration_is_one_form_of_each_kernel_however_many_partial_sums_come(conditions):
    """What is loaded in a warm-up is all that a capture needs: it can load nothing."""
    several, one, sixteen = conditions["iterations"]
    assert [launch["name"] for launch in several] == ["cg_update_kernel", "cg_scalars_kernel"]
    assert several == one == sixteen


def test_rows_without_end_fit_the_grid_of_a_linear_layer(conditions):
    # Triton's y and z end at 65,535.
    assert conditions["tall grid"] == [65536, 1, 1]


@FORMS
def test_the_set_up_of_a_step_takes_two_launches_and_nothing_else(steps, form):
    assert steps[form]["set-up launches"] == ["adaptive_setup_kernel"] * 2
    assert steps[form]["set-up operations"] == []
    in_torch = steps[f"{form} torch"]["set-up operations"]
    print(f"set-up, {form}: 2 launches with Triton, {len(in_torch)} operations with torch")
    assert len(in_torch) >= 13


@FORMS
def test_a_step_of_two_iterations(steps, form):
    """The last iteration only makes half a product; every product is one launch on each side."""
    for step in steps[form]["steps"]:
        launches = Counter(launch["name"] for launch in step)
        # Whether a step that looks at its garbage is taken is up to the garbage.
        averages = launches.pop("average_squares_kernel", 0)
        assert averages in ((2,) if form.startswith("captured") else (0, 2))
        assert launches == {
            "adaptive_setup_kernel": 2,
            "scatter_kernel": 4,
            # Of products, and of both players' gradients.
            "gather_kernel": 4 + 1,
            "partial_dot_kernel": 1,
            "cg_update_kernel": 2,
            "cg_scalars_kernel": 2,
            "cg_direction_kernel": 1,
        }


@pytest.mark.parametrize("form", ["captured min", "captured max"])
def test_steps_are_alike(steps, form):
    """Kernels, grids, specialisations and order, also in a capture: it can load nothing new."""
    first, *others = steps[form]["steps"]
    assert len(others) == 3
    assert all(step == first for step in others)


@pytest.mark.parametrize("backend", ["", " torch"], ids=["triton", "torch"])
@pytest.mark.parametrize("form", ["captured min", "captured max"])
def test_a_capturable_step_reads_nothing_on_the_host(steps, form, backend):
    assert steps[form + backend]["reads"] == [0, 0, 0, 0]
