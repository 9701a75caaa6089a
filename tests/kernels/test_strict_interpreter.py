"""The strict interpreter catches planted faults, and lets right kernels pass."""

import pytest
import torch
import triton
import triton.language as tl
from strict_interpreter import ViolationError, strict

BLOCK = 16


@triton.jit
def scale_kernel(x_ptr, out_ptr, factor, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at, x * factor, mask=at < n)


@triton.jit
def exact_scale_kernel(x_ptr, out_ptr, factor: tl.float64, n, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at, x * tl.full([], factor, tl.float64), mask=at < n)


@triton.jit
def mask_off_by_one_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at <= n, other=0.0)
    tl.store(out_ptr + at, x, mask=at < n)


@triton.jit
def store_past_the_end_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at, x)


@triton.jit
def missing_other_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out_ptr, tl.sum(tl.load(x_ptr + at, mask=at < n)))


@triton.jit
def two_writers_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out_ptr, tl.sum(tl.load(x_ptr + at, mask=at < n, other=0.0)) + tl.program_id(0))


@triton.jit
def two_lanes_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at // 2, x, mask=at < n)


@triton.jit
def shift_in_place_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at + 1, mask=at + 1 < n, other=0.0)
    tl.store(x_ptr + at, x, mask=at < n)


@triton.jit
def atomic_sum_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out_ptr, tl.sum(tl.load(x_ptr + at, mask=at < n, other=0.0)))


@triton.jit
def atomic_past_the_end_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    tl.atomic_add(out_ptr + n, 1.0)


@triton.jit
def running_sum_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    # Order matters, although each element has one writer and nobody reads it.
    total = tl.load(x_ptr + tl.program_id(0))
    tl.store(out_ptr + tl.program_id(0), tl.load(out_ptr + n) + total)
    tl.atomic_add(out_ptr + n, total)


@triton.jit
def through_table_kernel(table_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x_ptr = tl.load(table_ptr).to(tl.pointer_type(tl.float32))
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0), mask=at < n)


@triton.jit
def add_one_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=at < n, other=0.0) + 1.0, mask=at < n)


@triton.jit
def positive_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at, tl.where(x > 0, x, 0.0).to(tl.bfloat16), mask=at < n)


@triton.jit
def dot_kernel(a_ptr, b_ptr, out_ptr, PRECISION: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    product = tl.dot(tl.load(a_ptr + at), tl.load(b_ptr + at), input_precision=PRECISION)
    tl.store(out_ptr + at, product)


def vectors(n, dtype=torch.float32):
    return torch.randn(n).to(dtype), torch.full((n,), torch.nan, dtype=dtype)


@pytest.mark.parametrize("order", [None, "reverse", 3], ids=str)
def test_a_right_kernel_passes_in_any_order(order):
    x, out = vectors(41)
    with strict(order=order) as run:
        scale_kernel[(3,)](x, out, 2.0, 41, BLOCK)
        scale_kernel[(3,)](x, x, factor=1.0, n=41, BLOCK=BLOCK, num_warps=4)
    assert torch.equal(out, 2 * x)
    assert run.launches == ["scale_kernel", "scale_kernel"]


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (mask_off_by_one_kernel, "load out of bounds in 1 lanes"),
        (store_past_the_end_kernel, "store out of bounds"),
        (two_writers_kernel, "writes what was written by"),
        (two_lanes_kernel, "from several lanes"),
        (shift_in_place_kernel, r"(writes what was read|reads what was written) by"),
        (atomic_past_the_end_kernel, "atomic out of bounds"),
        (through_table_kernel, "load out of bounds"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("order", [None, "reverse", 0], ids=str)
def test_a_planted_fault_is_an_error(kernel, message, order):
    x, out = vectors(20)
    x = torch.tensor([x.data_ptr()]) if kernel is through_table_kernel else x
    with pytest.raises(ViolationError, match=message), strict(order=order):
        kernel[(2,)](x, out, 20 if kernel is not through_table_kernel else 5, 16)


def test_a_view_does_not_allow_its_whole_storage():
    storage, out = vectors(20)
    with pytest.raises(ViolationError, match="out of bounds"), strict():
        scale_kernel[(2,)](storage[:10], out, 1.0, 20, BLOCK)


def test_tensors_behind_a_table_can_be_allowed():
    x, out = vectors(5)
    with strict(also={"x": [x]}):
        through_table_kernel[(1,)](torch.tensor([x.data_ptr()]), out, 5, BLOCK)
    assert torch.equal(out, x)


def test_undefined_lanes_show():
    x, out = vectors(10)
    with strict():
        missing_other_kernel[(1,)](x, out, 10, BLOCK)
    assert out[0].isnan()
    missing_other_kernel[(1,)](x, out, 10, BLOCK)
    assert not out[0].isnan()


def test_atomics_do_not_race():
    x, out = torch.ones(40), torch.zeros(1)
    with strict():
        atomic_sum_kernel[(3,)](x, out, 40, BLOCK)
    assert out.item() == 40


def test_dependence_on_the_order_shows():
    results = []
    for order in (None, "reverse"):
        x, out = torch.arange(1.0, 5.0), torch.zeros(5)
        with strict(order=order, races=False):
            running_sum_kernel[(4,)](x, out, 4, BLOCK)
        results.append(out)
    assert not torch.equal(*results)


def test_float_arguments_are_those_of_a_launch():
    x, out = torch.ones(1, dtype=torch.float64), torch.empty(1, dtype=torch.float64)
    with strict():
        scale_kernel[(1,)](x, out, 0.1, 1, BLOCK)
        assert out.item() == torch.tensor(0.1, dtype=torch.float32).item() != 0.1
        exact_scale_kernel[(1,)](x, out, 0.1, 1, BLOCK)
        assert out.item() == 0.1


def test_a_misspelt_launch_option_is_an_error():
    x, out = vectors(4)
    with pytest.raises(ViolationError, match="num_wraps"), strict():
        scale_kernel[(1,)](x, out, 1.0, 4, BLOCK, num_wraps=4)


def test_bfloat16_arithmetic_is_that_of_torch():
    x, out = vectors(16, torch.bfloat16)
    with strict():
        add_one_kernel[(1,)](x, out, 16, BLOCK)
        assert torch.equal(out, x + 1)
        positive_kernel[(1,)](x, out, 16, BLOCK)
        assert torch.equal(out, x.relu())


@pytest.mark.parametrize(("dtype", "precision"), [("bf16", "ieee"), ("fp32", "tf32")])
def test_matrix_products_have_the_error_of_a_device(dtype, precision):
    torch_dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    a, b = (torch.rand(16, 16).to(torch_dtype) for _ in range(2))
    out = torch.empty(16, 16)
    with strict():
        dot_kernel[(1,)](a, b, out, precision, 16)
    truth = a.double() @ b.double()
    error = ((out - truth).norm() / truth.norm()).item()
    if dtype == "bf16":
        assert error < 1e-6
    else:
        # Dropped bits of positive numbers all have one sign.
        assert 2e-4 < error < 2e-3
        with strict():
            dot_kernel[(1,)](a, b, out, "tf32x3", 16)
        assert ((out - truth).norm() / truth.norm()).item() < 1e-6


def test_the_interpreter_is_left_as_it_was():
    x, out = vectors(20)
    with strict():
        scale_kernel[(2,)](x, out, 1.0, 20, BLOCK)
    two_writers_kernel[(2,)](x, out, 16, BLOCK)
