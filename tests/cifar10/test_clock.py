"""Seconds on a CPU are processor time: waiting costs nothing, computing does."""

import time

import torch

from benchmarks.cifar10.clock import Stopwatch


def test_seconds_on_a_cpu_leave_out_what_the_process_waits() -> None:
    watch = Stopwatch("cpu")
    watch.start()
    time.sleep(0.3)
    assert watch.stop() < 0.15


def test_seconds_on_a_cpu_count_what_the_process_computes() -> None:
    watch = Stopwatch("cpu")
    watch.start()
    matrix = torch.ones(300, 300)
    # Ends when the watch says so; a watch that stood still would never let it.
    rounds = 0
    while watch.running() < 0.05 and rounds < 100_000:
        matrix = (matrix @ matrix).clamp(0, 1)
        rounds += 1
    assert watch.stop() >= 0.05
    assert rounds < 100_000
