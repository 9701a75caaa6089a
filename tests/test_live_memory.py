"""Bytes of live tensors are counted as they come and go."""

import torch

from benchmarks.live_memory import LiveBytes


def test_a_storage_counts_once_and_as_long_as_anything_holds_it() -> None:
    held = torch.ones(1000)
    with LiveBytes([held]) as live:
        assert live.now == 4000
        double = held * 2
        assert live.now == 8000
        view = double.view(10, 100)
        del double
        assert live.now == 8000
        del view
        assert live.now == 4000
        held.add_(1)
    assert live.now == 4000
    assert live.peak == 8000


def test_what_a_graph_saves_counts_until_it_is_freed() -> None:
    x = torch.ones(1000, requires_grad=True)
    with LiveBytes() as live:
        loss = x.exp().sin().sum()
        # What lies between the two functions is kept, for both; the loss is one number.
        assert live.now == 4000 + 4
        del loss
        assert live.now == 0
