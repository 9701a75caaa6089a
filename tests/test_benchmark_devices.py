"""Benchmarks wait for the device that they measure, and live without what is not installed."""

import sys
from functools import partial
from itertools import chain
from types import SimpleNamespace

import pytest
import torch

from benchmarks import harness, live_memory, penalties, profile, step_cost

CUDA = torch.device("cuda")


class FakeCuda:
    """What a clock asks of a device, noted in order."""

    def __init__(self, monkeypatch):
        self.calls = []
        self.now = 0.0
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: self.calls.append("wait"))
        monkeypatch.setattr(torch.cuda, "device", lambda *_: self)
        monkeypatch.setattr(torch.cuda, "Event", self.event)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def event(self, *, enable_timing):
        assert enable_timing
        event = SimpleNamespace(at=None)
        event.record = lambda: (setattr(event, "at", self.now), self.calls.append("record"))
        event.synchronize = lambda: self.calls.append("wait for event")
        event.elapsed_time = lambda end: end.at - event.at
        return event


def test_time_on_a_device_is_that_between_its_events(monkeypatch):
    cuda = FakeCuda(monkeypatch)

    def work():
        cuda.calls.append("work")
        cuda.now += 250.0

    assert harness.clock(CUDA)(work) == 0.25
    assert cuda.calls == ["wait", "record", "work", "record", "wait for event"]


def test_works_take_turns_in_changing_orders_and_are_prepared_before_each():
    seen, now = [], []

    def seconds(work):
        work()
        now.append(len(seen))
        return float(now[-1])

    def prepare(name):
        seen.append(f"prepare {name}")
        return (lambda: seen.append("another")) if name == "c" else None

    works = {name: partial(seen.append, name) for name in "abc"}
    times = harness.in_turns(works, 20, seconds=seconds, prepare=prepare, warm_up=2)
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", 20)
    # The warm-up is not counted.
    assert sorted(chain(*times.values())) == now[6:]
    pairs = list(zip(seen[::2], seen[1::2], strict=True))
    assert set(pairs) == {("prepare a", "a"), ("prepare b", "b"), ("prepare c", "another")}
    rounds = [tuple(pairs[index : index + 3]) for index in range(0, len(pairs), 3)]
    assert all(len(set(order)) == 3 for order in rounds)
    assert len(set(rounds)) == 6


def test_figures_of_times():
    assert harness.spread([5.0, 1.0, 2.0, 3.0, 4.0]) == (3.0, 2.0, 4.0)
    assert harness.spread([1.0, 4.0, 2.0, 3.0], part=4) == (2.5, 2.0, 3.0)
    assert harness.ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_memory_on_a_device_is_what_a_function_adds(monkeypatch):
    calls = []
    for name, value in (
        ("synchronize", None),
        ("memory_allocated", 300),
        ("reset_peak_memory_stats", None),
        ("max_memory_allocated", 1000),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda _, n=name, v=value: (calls.append(n), v)[1])
    assert live_memory.device_peak(CUDA, lambda: calls.append("run")) == 700
    assert calls.index("reset_peak_memory_stats") < calls.index("run") < len(calls) - 2


@pytest.mark.parametrize("module", [step_cost, penalties, profile], ids=lambda m: m.__name__)
def test_a_device_that_is_not_there_is_refused(module, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        module.main(["--device", "cuda"])
    assert "needs a GPU" in capsys.readouterr().err


def test_a_step_is_measured_beside_packages_that_are_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "CGDs", None)
    monkeypatch.setattr(step_cost, "measure_memory", lambda *_: None)
    keys = ["adam", "cgds", "compopt-captured"]
    rows = step_cost.measure(keys, "poisson", 1, batch_size=4)
    assert list(rows) == ["adam", "compopt-captured"]
    assert "CGDs 0.4.5 ACGD is left out: CGDs is missing." in capsys.readouterr().out
    for row in rows.values():
        assert row["median_s"] > 0
        assert row["peak_tensors_gb"] > 0
    assert rows["compopt-captured"]["backward_calls"] == 5
    assert rows["compopt-captured"]["step_error"] < 0.5


def test_calls_are_counted_once_under_a_default_device():
    run = step_cost.Run("adam", "poisson", batch_size=4)
    with torch.device("cpu"):
        assert step_cost.backward_calls(run) == 1


def test_a_batch_stays_where_a_graph_reads_it():
    run = step_cost.Run("adam", "poisson", batch_size=4)
    before = [part.data_ptr() for part in run._batch]
    values = [part.clone() for part in run._batch]
    run.draw()
    assert [part.data_ptr() for part in run._batch] == before
    assert not torch.equal(run._batch[0], values[0])


def test_contestants_that_need_a_device_are_for_it_alone():
    on_cpu = step_cost.contestants_on(torch.device("cpu"))
    assert set(step_cost.contestants_on(CUDA)) - set(on_cpu) == {
        *("adam-fused", "adam-captured", "compopt-two", "compopt-captured", "compopt-torch"),
    }
