"""The model of weak scaling: its limits, and that it counts what is sent."""

import json

import pytest

from benchmarks.weak_scaling import (
    FOLDER,
    HARDWARE,
    NUM_GPUS,
    all_reduce,
    count,
    draw,
    model,
    step_time,
    straggler_slowdown,
)


@pytest.fixture(scope="module")
def work():
    return count("small", 0.1)


def test_messages_are_those_of_the_documented_step(work):
    n, m = work.num_min, work.num_max
    assert work.num_products == 4
    assert sorted(work.messages()) == sorted([4 * (n + m + 1), 4 * n, 4 * n, 4 * m, 4 * m])


def test_flops_grow_with_the_number_of_products_not_of_parameters_alone(work):
    """A step is at least a forward pass, both gradients, and four products."""
    assert work.flops > 5 * 2 * 64 * (work.num_min + work.num_max)


@pytest.mark.parametrize("num_bytes", [10**11])
def test_large_all_reduces_are_bound_by_bandwidth(num_bytes):
    two = num_bytes / HARDWARE.nvlink
    assert all_reduce(num_bytes, 2) == pytest.approx(two, rel=1e-2)
    assert all_reduce(num_bytes, 8) == pytest.approx(1.75 * two, rel=1e-2)
    across = 2 * (127 / 128) * num_bytes / 8 / HARDWARE.infiniband
    assert all_reduce(num_bytes, 1024) == pytest.approx(1.75 * two + across, rel=1e-2)


def test_steps_get_slower_with_gpus_and_overlap_helps(work):
    times = [step_time(work, n, overlap=True) for n in NUM_GPUS]
    assert times == sorted(times)
    large = count("large", 4.0)
    assert step_time(large, 64, overlap=True) < step_time(large, 64, overlap=False)
    assert step_time(large, 1, overlap=True) == step_time(large, 1, overlap=False)


def test_stragglers_cost_more_the_more_there_are():
    slowdowns = [straggler_slowdown(n) for n in NUM_GPUS]
    assert slowdowns[0] == 1
    assert slowdowns == sorted(slowdowns)
    # The largest of many normal variables, here 1024: 3.2 deviations above the mean.
    assert slowdowns[-1] == pytest.approx(2.718 ** (3.2 * HARDWARE.straggling), rel=0.02)


def test_plot_and_stored_result_say_what_they_are(work, tmp_path):
    result = model([work, count("other", 0.2)])
    draw(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    stored = json.loads((FOLDER / "weak_scaling.json").read_text())
    assert stored["kind"] == result["kind"] == "a model, not a measurement"
    large = stored["curves"]["DCGAN, 100 M parameters"]
    assert 95e6 < sum(large["parameters"]) < 105e6
    assert all("https://" in source for source in stored["sources"].values())
