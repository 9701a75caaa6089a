"""Every kernel of layers and penalties at every size, layout and dtype, interpreted strictly."""

import pytest
import torch
from covering import one_each
from kernel_checks import (
    ORDERS,
    fill_new_memory_with_nan,
    skip_without_wide_products,
)
from layer_cases import CASES
from strict_interpreter import strict

from compopt.kernels import activations

RTOL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Largest error relative to the largest entry of a result, of sums over all entries among them."""

ALL_CASES = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture(autouse=True)
def _unwritten_memory(monkeypatch):
    fill_new_memory_with_nan(monkeypatch)


@pytest.fixture(autouse=True)
def _large_tiles(monkeypatch, request):
    """Fewer and larger tiles for the largest size, whose programs take their time."""
    if request.node.callspec.params.get("n", 0) <= 1000:
        return
    linear, penalties = CASES["linear tangent tall"].form, CASES["diversity"].form
    monkeypatch.setattr(linear, "tile_for", lambda *_: linear.Tile(512, 16, 256, 4, 2))
    constants = penalties._constants
    monkeypatch.setattr(penalties, "_constants", lambda *a: {**constants(*a), "INNER": 512})
    monkeypatch.setattr(penalties, "_ROWS", 1024)
    monkeypatch.setattr("compopt.kernels.batch_norm.triton._TILE", 1 << 14)
    monkeypatch.setattr("compopt.kernels.activations.triton._BLOCK", 1 << 13)


def exact(given):
    return {name: tensor.double() for name, tensor in given.items()}


def assert_right(found, expected, rtol):
    for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.shape == theirs.shape
        assert torch.isfinite(ours).all()
        if ours.numel():
            scale = max(float(theirs.abs().max()), 1.0)
            error = float((ours.double() - theirs.double()).abs().max())
            assert error <= rtol * scale, f"{index=} {error=} {scale=}"


@pytest.mark.parametrize(
    ("case", "n"),
    # Without two entries there is no variance, and batch norm refuses its input.
    [
        pytest.param(case, n, id=f"{n}-{name}", marks=[pytest.mark.slow] if n > 10_000 else [])
        for name, case in CASES.items()
        for n in (0, 1, 63, 3001, 2**16 + 1)
        if n >= case.smallest
    ],
)
def test_sizes(case, n):
    given = case.inputs(case.shape(n), torch.float32)
    expected = case.results(case.plain, truth := exact(given))
    given |= {name: truth[name].float() for name in truth.keys() - given.keys()}
    before = {name: tensor.clone() for name, tensor in given.items()}
    with strict() as run:
        found = case.results(case.form, given)
    assert set(run.launches) <= case.kernels
    assert n == 0 or set(run.launches) == case.kernels
    assert_right(found, expected, RTOL[torch.float32])
    for name, tensor in given.items():
        assert torch.equal(tensor, before[name]), name
        assert tensor._version == 0 or name not in before


def layouts(tensor):
    """Return tensors of the same values and other strides."""
    yield "contiguous", tensor
    if tensor.dim() == 4:
        yield "channels last", tensor.contiguous(memory_format=torch.channels_last)
    if tensor.dim() >= 2:
        yield "transposed", tensor.transpose(0, 1).contiguous().transpose(0, 1)
        yield "every other", torch.stack([tensor, tensor], -1)[..., 0]
    if tensor.dim() >= 1:
        yield (
            "unaligned",
            torch.cat([tensor.new_zeros(1), tensor.reshape(-1)])[1:].view(tensor.shape),
        )


@ALL_CASES
def test_layouts(case):
    if "norm" not in case.name and case.operation is not activations:
        skip_without_wide_products(case.form)
    given = case.inputs(case.shape(126), torch.float64)
    expected = case.results(case.plain, truth := dict(given))
    kinds = [kind for kind, _ in layouts(max(given.values(), key=torch.Tensor.dim))]
    for kind in kinds:
        other = {name: dict(layouts(tensor)).get(kind, tensor) for name, tensor in truth.items()}
        with strict():
            found = case.results(case.form, other)
        assert_right(found, expected, RTOL[torch.float64])


@pytest.mark.parametrize(("case", "dtype"), one_each(CASES, [torch.bfloat16, torch.float16]))
def test_half_precision(case, dtype):
    given = case.inputs(case.shape(126), dtype)
    expected = case.results(case.plain, truth := exact(given))
    # What is worked out on the way is rounded for the one form as for the other.
    given |= {
        name: truth[name].to(dtype if truth[name].dim() > 1 else torch.float32)
        for name in truth.keys() - given.keys()
    }
    with strict():
        found = case.results(case.form, given)
    assert_right(found, expected, RTOL[dtype])


@ALL_CASES
def test_results_repeat_bit_by_bit_in_any_order_of_programs(case, monkeypatch):
    monkeypatch.setattr("compopt.kernels.batch_norm.triton._PROGRAMS", 6)
    monkeypatch.setattr("compopt.kernels.layer_norm.triton._PROGRAMS", 4)
    monkeypatch.setattr("compopt.kernels.activations.triton._BLOCK", 64)
    given = case.inputs(case.shape(252), torch.float32)
    results = []
    for order in ORDERS:
        with strict(order=order):
            results.append(case.results(case.form, dict(given)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one, two)
