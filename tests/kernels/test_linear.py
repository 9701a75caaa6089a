"""The linear layer's R-operator against dense float64."""

import pytest
import torch
from kernel_checks import skip_without_wide_products
from strict_interpreter import strict
from torch.func import jvp
from torch.nn import functional

from compopt.kernels.linear import reference

RTOL = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
"""Relative to the largest entry. Narrow types: one rounding, of the result."""

SHAPES = {"one": (1, 1, 1), "63": (63, 5, 17), "odd": (65, 70, 33), "long": (3, 2, 1000)}


@pytest.fixture(params=["torch", "triton"])
def form(request):
    if request.param == "torch":
        return reference
    return pytest.importorskip("compopt.kernels.linear.triton")


def inputs(shape, dtype):
    n, m, d = shape
    pairs = [torch.randn(rows, d, dtype=torch.float64) for rows in (n, m, n, m)]
    return [t.to(dtype) for t in (*pairs, torch.randn(m, dtype=torch.float64))]


def expected(x_dot, weight, x, weight_dot, bias_dot):
    at, along = (x, weight, torch.zeros_like(bias_dot)), (x_dot, weight_dot, bias_dot)
    return jvp(functional.linear, tuple(t.double() for t in at), tuple(t.double() for t in along))[
        1
    ]


def error(found, true):
    assert found.shape == true.shape
    return float((found.double() - true).abs().max() / true.abs().max().clamp_min(1.0))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *((shape, torch.float32) for shape in SHAPES.values()),
        *((SHAPES["odd"], dtype) for dtype in RTOL if dtype != torch.float32),
    ],
    ids=str,
)
def test_shapes_and_dtypes(form, shape, dtype):
    skip_without_wide_products(form, dtype)
    given = inputs(shape, dtype)
    with strict():
        found = form.linear_tangent(*given)
    assert found.dtype == dtype
    assert error(found, expected(*given)) <= (2 if form is reference else 1) * RTOL[dtype]


def test_without_bias_and_with_other_strides(form):
    skip_without_wide_products(form)
    x_dot, weight, x, weight_dot, bias_dot = inputs((9, 6, 20), torch.float64)
    weight = weight.T.contiguous().T
    with strict():
        found = form.linear_tangent(x_dot, weight, x, weight_dot)
    true = expected(x_dot, weight, x, weight_dot, torch.zeros_like(bias_dot))
    assert error(found, true) <= RTOL[torch.float64]


@pytest.mark.parametrize(("precision", "rtol"), [("tf32", 1e-3), ("tf32x3", 1e-6)])
def test_precision_of_float32_products(precision, rtol):
    form = pytest.importorskip("compopt.kernels.linear.triton")
    given = inputs((65, 70, 33), torch.float32)
    with strict():
        found = form.linear_tangent(*given, precision=precision)
    assert error(found, expected(*given)) <= rtol


def _set(settings, name, value):
    if not hasattr(settings, name):
        pytest.skip(f"This torch has no {name}.")
    setattr(settings, name, value)


@pytest.fixture
def matmul():
    """Return torch's settings of products on a device, and put them back."""
    settings = torch.backends.cuda.matmul
    yield settings
    torch.set_float32_matmul_precision("highest")
    if hasattr(settings, "fp32_precision"):
        settings.fp32_precision = "none"


@pytest.mark.parametrize(
    ("name", "value", "is_tf32"),
    [
        ("allow_tf32", True, True),
        ("allow_tf32", False, False),
        # After which the older name cannot be read.
        ("fp32_precision", "tf32", True),
        ("fp32_precision", "ieee", False),
    ],
)
def test_precision_is_that_of_torch_by_either_of_its_names(matmul, name, value, is_tf32):
    form = pytest.importorskip("compopt.kernels.linear.triton")
    _set(matmul, name, value)
    given = inputs((65, 70, 33), torch.float32)
    with strict():
        found = form.linear_tangent(*given)
    assert (error(found, expected(*given)) > 1e-5) == is_tf32


@pytest.mark.slow
def test_large_tiles_and_the_order_of_programs():
    form = pytest.importorskip("compopt.kernels.linear.triton")
    given = inputs((1500, 1400, 8), torch.bfloat16)
    assert form.tile_for(torch.bfloat16, "ieee", 1500, 1400).rows == 128
    results = []
    for order in (None, "reverse"):
        with strict(order=order):
            results.append(form.linear_tangent(*given))
    assert torch.equal(*results)
    assert error(results[0], expected(*given)) <= RTOL[torch.bfloat16]


def test_empty(form):
    assert form.linear_tangent(*inputs((0, 3, 2), torch.float32)).shape == (0, 3)
