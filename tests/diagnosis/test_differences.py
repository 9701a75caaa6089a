"""What differences at two widths say of a derivative."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from compopt.diagnosis._differences import Precision, Verdict, compare, random_direction

FLOAT64 = Precision.of(torch.float64)


def judge(function, derivative, x: float, width: float = 1e-3):
    """Compare a derivative of a function of one number with differences of width 1e-3."""

    def at(width: float) -> list[Tensor]:
        return [torch.tensor(float(function(x + width)), dtype=torch.float64)]

    expected = [torch.tensor(float(derivative), dtype=torch.float64)]
    return compare(expected, at(0.0), at, width, rtol=1e-2, noise=1e-9)


@pytest.mark.parametrize("factor", [1.0, 1.009])
def test_a_right_derivative_agrees(factor):
    comparison = judge(math.exp, factor * math.exp(0.5), 0.5)
    assert comparison.verdict is Verdict.AGREES
    assert comparison.error == pytest.approx(factor - 1, abs=2e-4)


@pytest.mark.parametrize(
    ("factor", "error"), [(-1.0, 2.0), (0.0, 1.0), (0.9, 0.1), (2.0, 0.5), (1.02, 0.0196)]
)
def test_a_wrong_derivative_of_a_smooth_function_is_wrong(factor, error):
    comparison = judge(math.exp, factor * math.exp(0.5), 0.5)
    assert comparison.verdict is Verdict.WRONG
    # Tensors are compared with the whole's share besides.
    assert comparison.error == pytest.approx(error, rel=2e-2)


@pytest.mark.parametrize("derivative", [0.0, 1.0, -1.0])
def test_at_a_kink_nothing_is_wrong(derivative):
    comparison = judge(abs, derivative, 0.0)
    assert comparison.verdict is (Verdict.AGREES if derivative == 0 else Verdict.UNDECIDED)


@pytest.mark.parametrize("place", [2e-4, 4e-4, 7e-4, 9.9e-4])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_kink_within_the_width_is_no_error(place, sign):
    comparison = judge(abs, sign, sign * place)
    assert comparison.verdict is not Verdict.WRONG


@pytest.mark.parametrize("place", [2e-4, 4e-4, 9.9e-4, 0.1])
def test_a_jump_is_no_error(place):
    comparison = judge(lambda x: x + (x > 0), 1.0, place)
    assert comparison.verdict is not Verdict.WRONG


@pytest.mark.parametrize("function", [math.sin, math.cos])
@pytest.mark.parametrize("x", [0.0, 1e-4])
def test_bends_that_a_width_does_not_resolve_are_no_error(function, x):
    """About zero a sine is as far ahead as behind: there the two widths tell."""
    slope = 3e3 * (math.cos(3e3 * x) if function is math.sin else -math.sin(3e3 * x))
    assert judge(lambda x: function(3e3 * x), slope, x).verdict is not Verdict.WRONG


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_judged(value):
    assert judge(lambda x: value, 1.0, 0.0).verdict is Verdict.UNDECIDED


def test_rounding_is_no_error():
    comparison = judge(lambda x: x + 1e-12 * math.sin(1e8 * x), 1e-10, 0.0, width=1e-3)
    assert comparison.verdict is Verdict.WRONG
    small = judge(lambda x: 1e-12 * math.sin(1e8 * x), 0.0, 0.0)
    assert small.verdict is Verdict.AGREES


@pytest.mark.parametrize("bad", range(3))
def test_a_small_tensor_counts_beside_a_large_one(bad):
    tensors = [torch.full((2,), size, dtype=torch.float64) for size in (1.0, 0.05, 3.0)]

    def at(width: float) -> list[Tensor]:
        return [t * (1 + width) for t in tensors]

    wrong = [t * (1.5 if i == bad else 1) for i, t in enumerate(tensors)]
    comparison = compare(wrong, tensors, at, 1e-3, rtol=1e-2, noise=1e-9)
    assert comparison.verdict is Verdict.WRONG
    assert comparison.worst == bad
    assert compare(tensors, tensors, at, 1e-3, rtol=1e-2, noise=1e-9).verdict is Verdict.AGREES


def test_a_tensor_without_share_is_not_judged_alone():
    tensors = [torch.ones(2, dtype=torch.float64), torch.full((2,), 1e-9, dtype=torch.float64)]

    def at(width: float) -> list[Tensor]:
        return [t * width for t in tensors]

    expected = [tensors[0], -tensors[1]]
    zeros = [torch.zeros_like(t) for t in tensors]
    comparison = compare(expected, zeros, at, 1e-3, rtol=1e-3, noise=0.0)
    assert comparison.verdict is Verdict.AGREES


def test_second_width_is_formed_only_when_needed():
    widths = []

    def at(width: float) -> list[Tensor]:
        widths.append(width)
        return [torch.tensor(width)]

    run = partial(compare, base=[torch.zeros(())], at=at, width=0.5, rtol=1e-2, noise=0.0)
    run([torch.ones(())])
    assert widths == [0.5, -0.5]
    widths.clear()
    run([-torch.ones(())])
    assert widths == [0.5, -0.5, 0.25, -0.25]


@pytest.mark.parametrize("value", [0.0, 1e-3, 1.0, 1e6, 1e12])
def test_widths_rise_above_rounding(value):
    width = FLOAT64.width_for(value, slope=1.0)
    assert FLOAT64.loss_width <= width <= 1e2 * FLOAT64.loss_width
    if value <= 1:
        assert width == FLOAT64.loss_width
    if width < 1e2 * FLOAT64.loss_width:
        assert FLOAT64.noise(value, width) <= 0.1 * FLOAT64.rtol * 1.001


def test_directions_have_the_size_of_their_tensors():
    tensors = [
        torch.full((4000,), 3.0),
        torch.zeros(4000),
        torch.full((4000,), -0.1),
        torch.ones(0),
    ]
    generator = torch.Generator().manual_seed(0)
    first, second, third, empty = random_direction(tensors, generator)
    assert float(first.std()) == pytest.approx(3.0, rel=0.05)
    assert float(second.std()) == pytest.approx(1.55, rel=0.05)
    assert float(third.std()) == pytest.approx(0.1, rel=0.05)
    assert empty.shape == (0,)
    zeros = random_direction([torch.zeros(4000)], generator)
    assert float(zeros[0].std()) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tolerances_are_above_rounding(dtype):
    precision = Precision.of(dtype)
    assert precision.eps < precision.repeat_rtol < 1
    assert precision.eps < precision.order_rtol < 1
    assert (precision.loss_width is None) == (dtype.itemsize == 2)
    assert (precision.gradient_width is None) == (dtype != torch.float64)
