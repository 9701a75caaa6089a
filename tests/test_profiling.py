"""A profile of a step shows its parts by name, nested as they are."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from compopt import ACGD, CGD, GMRES, ConjugateGradient
from compopt._profiling import Range
from compopt.optim.rivals import SGA

PARTS = {part.value: part for part in Range}


def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x @ y).sin() + x.square().sum() - y.square().sum()


def players() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(5, requires_grad=True) for _ in range(2))


def ranges(step) -> list[tuple[Range, Range | None]]:
    """Return each range of a step in order of its end, with the one that it lies in."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    found = []
    for event in recorded.events():
        if event.name in PARTS:
            outer = event.cpu_parent
            while outer is not None and outer.name not in PARTS:
                outer = outer.cpu_parent
            found.append((PARTS[event.name], PARTS[outer.name] if outer else None))
    return found


@pytest.mark.parametrize("optimizer", [CGD, ACGD])
def test_each_part_of_a_step_is_a_range(optimizer) -> None:
    x, y = players()
    stepper = optimizer([x], [y], lr=0.1, solver=ConjugateGradient(rtol=0.0, max_iter=2))
    found = ranges(lambda: stepper.step(loss_of(x, y)))
    assert found.count((Range.GRADIENTS, None)) == 1
    assert found.count((Range.SET_UP, None)) == 1
    assert found.count((Range.SOLVE, None)) == 1
    assert found.count((Range.PRODUCT, Range.SOLVE)) == stepper.last_step.num_hvp == 4
    assert found.count((Range.UPDATE, None)) == 1
    assert {part for part, _ in found} == set(Range)


def test_general_sum_games_and_rivals_are_marked_too() -> None:
    x, y = players()
    general = CGD([x], [y], lr=0.1, solver=GMRES())
    found = ranges(lambda: general.step((loss_of(x, y), (x * y).sum().exp())))
    assert (Range.GRADIENTS, None) in found
    assert found.count((Range.PRODUCT, Range.SOLVE)) == general.last_step.num_hvp > 0
    rival = SGA([x], [y], lr=0.1)
    found = ranges(lambda: rival.step(loss_of(x, y)))
    assert (Range.GRADIENTS, None) in found
    assert (Range.PRODUCT, None) in found


def test_an_error_in_a_range_ends_it() -> None:
    x, y = players()
    stepper = CGD([x], [y], lr=0.1)

    def failing_step() -> None:
        with pytest.raises(ValueError, match="both players"):
            stepper.step(x.sum())
        stepper.step(loss_of(x, y))

    assert (Range.SOLVE, None) in ranges(failing_step)
