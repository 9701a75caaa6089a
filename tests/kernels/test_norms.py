"""Triton kernels of normalization against the plain form in float64."""

import pytest
import torch
from covering import one_each
from strict_interpreter import strict

from compopt.kernels.batch_norm import reference as norms

triton_norms = pytest.importorskip("compopt.kernels.batch_norm.triton")

RTOL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Largest error relative to the largest entry. float32: sums of up to 1000 entries around 2."""

SHAPES = {
    "two entries": (2, 1),
    "2d": (63, 5),
    "2d wide": (9, 130),
    "3d": (3, 4, 65),
    "4d": (5, 3, 7, 9),
    "4d many rows": (70, 2, 4, 4),
    "4d long rows": (3, 2, 41, 25),
}


def assert_close(found, expected, rtol):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        assert not ours.isnan().any()
        scale = max(float(theirs.abs().max()), 1.0)
        error = float((ours.double() - theirs.double()).abs().max())
        assert error <= rtol * scale, f"{error=} {scale=}"


def inputs(shape, dtype, *, affine=True):
    channels = shape[1]
    x, v, grad = (torch.randn(shape, dtype=torch.float64).to(dtype) for _ in range(3))
    x += 2
    vector = torch.float64 if dtype == torch.float64 else torch.float32
    weight, bias, v_weight, v_bias = (torch.randn(channels, dtype=vector) for _ in range(4))
    return x, v, grad, weight if affine else None, bias if affine else None, v_weight, v_bias


def all_derivatives(module, given, slope, eps=1e-3):
    x, v, grad, weight, bias, v_weight, v_bias = given
    y, mean, invstd = module.batch_norm_forward(x, weight, bias, None, None, 0.1, eps, slope)
    saved = x, y, weight, mean, invstd, slope
    for_x, for_weight, for_bias = module.batch_norm_backward(grad, saved)
    tangent, sums = module.batch_norm_tangent(v, v_weight, v_bias, saved)
    curvature = module.batch_norm_curvature(v, v_weight, sums, grad, for_weight, for_bias, saved)
    return [y, mean, invstd, for_x, for_weight, for_bias, tangent, sums, *curvature]


def wide(given):
    return tuple(None if t is None else t.double() for t in given)


@pytest.mark.parametrize(("shape", "slope"), one_each(SHAPES, [1.0, 0.0, 0.2]))
def test_shapes_and_slopes(shape, slope):
    given = inputs(shape, torch.float32)
    with strict() as run:
        found = all_derivatives(triton_norms, given, slope)
    assert_close(found, all_derivatives(norms, wide(given), slope), RTOL[torch.float32])
    # Forward, gradient, tangent and curvature: two launches each.
    assert len(run.launches) == 8


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", RTOL, ids=str)
def test_dtypes_and_layouts(dtype, memory_format):
    given = inputs((4, 5, 6, 3), dtype)
    given = (given[0].contiguous(memory_format=memory_format), *given[1:])
    with strict():
        found = all_derivatives(triton_norms, given, 0.2)
    for index in (0, 3, 6, 8):
        assert found[index].dtype == dtype
        assert found[index].is_contiguous(memory_format=memory_format)
    assert_close(found, all_derivatives(norms, wide(given), 0.2), RTOL[dtype])


def test_inputs_of_any_strides_without_weight():
    x, v, grad, *rest = inputs((4, 5, 6, 3), torch.float64, affine=False)
    given = x.transpose(2, 3), v[:, :, ::1].transpose(2, 3), grad.flip(0).transpose(2, 3), *rest
    with strict():
        found = all_derivatives(triton_norms, given, 0.0)
    assert_close(found, all_derivatives(norms, given, 0.0), RTOL[torch.float64])


@pytest.mark.parametrize(
    ("memory_format", "order"), [(torch.channels_last, "reverse"), (torch.contiguous_format, 3)]
)
def test_order_of_programs_changes_no_bit(order, memory_format, monkeypatch):
    monkeypatch.setattr(triton_norms, "_PROGRAMS", 6)
    given = inputs((70, 3, 5, 4), torch.float32)
    given = (given[0].contiguous(memory_format=memory_format), *given[1:])
    results = []
    for one in (None, order):
        with strict(order=one):
            results.append(all_derivatives(triton_norms, given, 0.2))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_several_splits_per_channel(monkeypatch):
    given = inputs((90, 3, 4, 4), torch.float32)
    monkeypatch.setattr(triton_norms, "_PROGRAMS", 12)
    assert triton_norms.Geometry.of(given[0]).splits == 2
    with strict():
        found = all_derivatives(triton_norms, given, 0.2)
    assert_close(found, all_derivatives(norms, wide(given), 0.2), RTOL[torch.float32])


def test_running_statistics():
    x = inputs((6, 5, 3, 3), torch.float64)[0]
    running = [
        (torch.ones(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)) for _ in "ab"
    ]
    with strict():
        triton_norms.batch_norm_forward(x, None, None, *running[0], 0.3, 1e-5)
    norms.batch_norm_forward(x, None, None, *running[1], 0.3, 1e-5)
    assert_close(running[0], running[1], 1e-12)
