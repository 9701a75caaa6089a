"""Triton kernels of bias and activation against the plain form in float64."""

import pytest
import torch
from covering import pairwise
from strict_interpreter import strict

from compopt.kernels.activations import reference as activations

triton_activations = pytest.importorskip("compopt.kernels.activations.triton")

RTOL = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 1.5e-3}
SHAPES = {"1": ((1, 1), 1), "63": ((9, 7), -1), "4d": ((3, 5, 9, 8), 1), "exact": ((4, 256), -1)}


def inputs(shape, dim, dtype):
    tensors = [2 * torch.randn(shape, dtype=torch.float64) for _ in range(3)]
    tensors[0].view(-1)[0] = 30.0
    vectors = [torch.randn(shape[dim], dtype=torch.float64) for _ in range(2)]
    return [t.to(dtype) for t in (*tensors, *vectors)]


def all_derivatives(module, given, kind, dim, *, biased):
    x, v, grad, bias, v_bias = given
    if not biased:
        bias = v_bias = None
    options = activations.Activation(kind, 0.2, dim)
    y = module.bias_act_forward(x, bias, options)
    # Not the module's own output: its rounding would be the derivatives' error.
    source = y if kind in activations.FROM_OUTPUT else x
    for_x, for_bias = module.bias_act_backward(grad, source, bias, options)
    tangent = module.bias_act_tangent(v, v_bias, source, bias, options)
    curvature = module.bias_act_curvature(v, v_bias, grad, source, bias, options)
    found = [y, for_x, for_bias, tangent, *curvature]
    return [t for t in found if t is not None]


def assert_close(found, expected, rtol):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        scale = max(float(theirs.abs().max()), 1.0)
        error = float((ours.double() - theirs).abs().max())
        assert error <= rtol * scale, f"{error=} {scale=}"


@pairwise(at=SHAPES, kind=activations.ACTIVATIONS, biased={"bias": True, "none": False})
def test_shapes(at, kind, biased):
    shape, dim = at
    given = inputs(shape, dim, torch.float64)
    with strict():
        found = all_derivatives(triton_activations, given, kind, dim, biased=biased)
    expected = all_derivatives(activations, given, kind, dim, biased=biased)
    assert_close(found, expected, RTOL[torch.float64])


@pytest.mark.parametrize("dtype", RTOL, ids=str)
@pytest.mark.parametrize("kind", activations.ACTIVATIONS)
def test_dtypes(kind, dtype):
    given = inputs((9, 7), -1, dtype)
    with strict():
        found = all_derivatives(triton_activations, given, kind, -1, biased=True)
    exact = [t.double() for t in given]
    # The derivative of tanh in narrow types is that of the rounded output.
    rtol = 4 * RTOL[dtype] if kind == "tanh" else RTOL[dtype]
    assert_close(found, all_derivatives(activations, exact, kind, -1, biased=True), rtol)


@pytest.mark.parametrize("order", ["reverse", 3])
def test_other_strides_and_the_order_of_programs(order):
    given = inputs((40, 33), -1, torch.float64)
    given = [t.T.contiguous().T if t.dim() == 2 else t for t in given]
    results = []
    for one in (None, order):
        with strict(order=one):
            results.append(all_derivatives(triton_activations, given, "silu", -1, biased=True))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    expected = all_derivatives(activations, given, "silu", -1, biased=True)
    assert_close(results[0], expected, RTOL[torch.float64])
