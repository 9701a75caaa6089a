"""The model of weak scaling: its limits, and that it counts what is sent."""

import json
from dataclasses import fields

import pytest

from benchmarks.weak_scaling import (
    FOLDER,
    MACHINES,
    NUM_GPUS,
    SOURCES,
    Machine,
    all_reduce,
    broadcast,
    count,
    draw,
    gather,
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


@pytest.fixture(params=MACHINES)
def machine(request):
    return MACHINES[request.param]


def test_large_all_reduces_are_bound_by_bandwidth(machine):
    num_bytes = 10**11
    two = num_bytes / machine.nvlink / machine.link_share
    assert all_reduce(num_bytes, 2, machine) == pytest.approx(two, rel=1e-2)
    assert all_reduce(num_bytes, 8, machine) == pytest.approx(1.75 * two, rel=1e-2)
    across = 2 * (127 / 128) * num_bytes / 8 / machine.infiniband / machine.link_share
    assert all_reduce(num_bytes, 1024, machine) == pytest.approx(1.75 * two + across, rel=1e-2)


def test_small_messages_are_bound_by_latency(machine):
    """In microseconds, by hand: 7 hops in a node and 7 from node to node."""
    assert all_reduce(1, 1024, machine) == pytest.approx((8.4 + 2 * (7 * 4 + 7 * 14)) * 1e-6)
    assert broadcast(1024, machine) == pytest.approx((6.8 + 7 * 0.6 + 7 * 5) * 1e-6)
    assert broadcast(2, machine) == pytest.approx((6.8 + 0.6) * 1e-6)
    assert gather(1024, machine) == pytest.approx((6.8 + 128 * (7 * 0.6 + 5)) * 1e-6)
    assert gather(8, machine) == pytest.approx((6.8 + 7 * 0.6) * 1e-6)


def test_steps_get_slower_with_gpus_and_overlap_helps(work, machine):
    times = [step_time(work, n, machine, overlap=True) for n in NUM_GPUS]
    assert times == sorted(times)
    large = count("large", 4.0)
    with_overlap, without = (step_time(large, 64, machine, overlap=o) for o in (True, False))
    assert with_overlap < without
    alone = [step_time(large, 1, machine, overlap=o) for o in (True, False)]
    assert alone[0] == alone[1]


def test_stragglers_cost_more_the_more_there_are(machine):
    slowdowns = [straggler_slowdown(n, machine) for n in NUM_GPUS]
    assert slowdowns[0] == 1
    assert slowdowns == sorted(slowdowns)
    # The largest of many normal variables, here 1024: 3.2 deviations above the mean.
    assert slowdowns[-1] == pytest.approx(2.718 ** (3.2 * machine.straggling), rel=0.02)


def test_plot_and_stored_result_say_what_they_are(work, tmp_path):
    result = model([work, count("other", 0.2)])
    draw(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    stored = json.loads((FOLDER / "weak_scaling.json").read_text())
    assert stored["kind"] == result["kind"] == "a model, not a measurement"
    assert stored["machines"] == result["machines"]
    assert stored["sources"] == result["sources"]
    assert 95e6 < sum(stored["workloads"]["DCGAN, 100 M parameters"]["parameters"]) < 105e6
    assert all("https://" in source for source in stored["sources"].values())


def test_every_figure_of_a_machine_has_a_source_or_is_called_assumed():
    cited = " ".join(SOURCES)
    for name in (field.name for field in fields(Machine)):
        sentence = Machine.__doc__.split(f"        {name}: ")[1]
        assert name.removeprefix("small_") in cited or sentence.startswith("assumed"), name
