"""Triton kernels of layer normalization against the plain form in float64."""

import pytest
import torch
from strict_interpreter import strict

from compopt.kernels.layer_norm import reference as norms

triton_norms = pytest.importorskip("compopt.kernels.layer_norm.triton")

RTOL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
SHAPES = {"63": ((3, 63), 1), "two dims": ((4, 2, 5, 3), 2), "one row": ((1000,), 1)}


def inputs(shape, num_dims, dtype, *, affine=True):
    x, v, grad = (torch.randn(shape, dtype=torch.float64).to(dtype) for _ in range(3))
    vector = torch.float64 if dtype == torch.float64 else torch.float32
    row = shape[len(shape) - num_dims :]
    weight, bias, v_weight, v_bias = (torch.randn(row, dtype=vector) for _ in range(4))
    return x + 2, v, grad, weight if affine else None, bias if affine else None, v_weight, v_bias


def all_derivatives(module, given, num_dims):
    x, v, grad, weight, bias, v_weight, v_bias = given
    y, mean, invstd = module.layer_norm_forward(x, weight, bias, num_dims, 1e-3)
    saved = x, weight, mean, invstd, num_dims
    gradients = module.layer_norm_backward(grad, saved)
    tangent, projected = module.layer_norm_tangent(v, v_weight, v_bias, saved)
    curvature = module.layer_norm_curvature(v, v_weight, projected, grad, saved)
    weightless = weight is None
    return [y, mean, invstd, *gradients[: 1 if weightless else 3], tangent, projected, *curvature]


def assert_close(found, expected, rtol):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        scale = max(float(theirs.abs().max()), 1.0)
        error = float((ours.double() - theirs).abs().max())
        assert error <= rtol * scale, f"{error=} {scale=}"


@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize(("shape", "num_dims"), SHAPES.values(), ids=SHAPES)
def test_all_derivatives(shape, num_dims, dtype):
    given = inputs(shape, num_dims, dtype)
    with strict() as run:
        found = all_derivatives(triton_norms, given, num_dims)
    assert len(run.launches) == 4
    exact = tuple(t.double() for t in given)
    assert_close(found, all_derivatives(norms, exact, num_dims), RTOL[dtype])


def test_without_weight_and_with_other_strides():
    given = inputs((7, 33), 1, torch.float64, affine=False)
    given = tuple(t.T.contiguous().T if t is not None and t.dim() == 2 else t for t in given)
    with strict():
        found = all_derivatives(triton_norms, given, 1)
    assert_close(found, all_derivatives(norms, given, 1), RTOL[torch.float64])


def test_rows_shared_by_programs_in_any_order(monkeypatch):
    monkeypatch.setattr(triton_norms, "_PROGRAMS", 4)
    given = inputs((11, 20), 1, torch.float32)
    results = []
    for order in (None, "reverse", 3):
        with strict(order=order):
            results.append(all_derivatives(triton_norms, given, 1))
    assert all(
        torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True)
    )
    exact = tuple(t.double() for t in given)
    assert_close(results[0], all_derivatives(norms, exact, 1), RTOL[torch.float32])


def test_rows_too_long_are_refused():
    x = torch.randn(1, triton_norms.MAX_COLS + 1)
    with pytest.raises(ValueError, match="at most 16384 entries, got 16385"):
        triton_norms.layer_norm_forward(x, None, None, 1, 1e-5)
