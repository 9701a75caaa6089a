"""Launches of whole ACGD steps with the Triton backend, counted by Triton's own launch path."""

from collections import Counter
from pathlib import Path

import pytest
from compiling import run_compiling

FORMS = pytest.mark.parametrize("form", ["plain min", "plain max", "captured min", "captured max"])


@pytest.fixture(scope="module")
def found():
    return run_compiling(Path(__file__).with_name("step_launches.py"))


@FORMS
def test_the_set_up_of_a_step_takes_two_launches_and_nothing_else(found, form):
    assert found[form]["set-up launches"] == ["adaptive_setup_kernel"] * 2
    assert found[form]["set-up operations"] == []
    in_torch = found[f"{form} torch"]["set-up operations"]
    print(f"set-up, {form}: 2 launches with Triton, {len(in_torch)} operations with torch")
    assert len(in_torch) >= 13


@FORMS
def test_a_step_of_two_iterations(found, form):
    """The last iteration only makes half a product; every product is one launch on each side."""
    for step in found[form]["steps"]:
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
def test_steps_are_alike(found, form):
    """Kernels, grids, specialisations and order, also in a capture: it can load nothing new."""
    first, *others = found[form]["steps"]
    assert len(others) == 3
    assert all(step == first for step in others)


@pytest.mark.parametrize("backend", ["", " torch"], ids=["triton", "torch"])
@pytest.mark.parametrize("form", ["captured min", "captured max"])
def test_a_capturable_step_reads_nothing_on_the_host(found, form, backend):
    assert found[form + backend]["reads"] == [0, 0, 0, 0]
