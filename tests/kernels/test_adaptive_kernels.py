"""The set-up of an adaptive step, interpreted strictly, against float64."""

import pytest
import torch
from covering import pairwise
from kernel_checks import FP32, ORDERS, SIZES_AND_DTYPES, assert_accurate, nan_empty, vector
from strict_interpreter import strict

from compopt.kernels import adaptive_setup_, average_squares_, use_backend
from compopt.kernels.adaptive import reference


@pytest.fixture(autouse=True)
def _unwritten_memory(monkeypatch):
    monkeypatch.setattr(torch, "empty", nan_empty)


@pytest.fixture(autouse=True)
def _triton():
    with use_backend("triton"):
        yield


@pytest.mark.parametrize(
    ("n", "dtype", "outputs", "on_device"),
    [
        *((*at, "all", False) for at in SIZES_AND_DTYPES),
        *((63, FP32, outputs, True) for outputs in ["all", "root", "scaled", "step sizes"]),
        *((63, FP32, outputs, False) for outputs in ["root", "scaled", "step sizes"]),
    ],
)
def test_setup(n, dtype, outputs, on_device):
    average, grad = vector(n, dtype).square(), vector(n, dtype)
    wide = torch.promote_types(dtype, torch.float32)
    rate = torch.tensor(0.0123, dtype=wide) if on_device else 0.0123
    step_sizes = torch.empty(n, dtype=dtype)
    root = torch.empty(n, dtype=dtype) if outputs in ("all", "root") else None
    scaled = torch.empty(n, dtype=dtype) if outputs in ("all", "scaled") else None
    before = average.clone(), grad.clone()
    with strict() as run:
        adaptive_setup_(average, grad, 0.99, rate, 1e-5, step_sizes, root, scaled, sign=-1)
    assert run.launches == ["adaptive_setup_kernel"]
    v = 0.99 * average.double() + 0.01 * grad.double() ** 2
    truth = float(rate) / (v.sqrt() + 1e-5)
    assert_accurate(step_sizes, truth)
    if root is not None:
        assert_accurate(root, truth.sqrt())
    if scaled is not None:
        factor = truth if root is None else truth.sqrt()
        assert_accurate(scaled, -factor * grad.double())
    assert torch.equal(average, before[0])
    assert torch.equal(grad, before[1])


@pairwise(
    beta=[0.0, 0.9, 0.9999],
    steps=[0, 1, 50, 100_000],
    rate={"number": 0.0123, "tensor": torch.tensor(0.0123)},
    backend=["triton", "torch"],
)
def test_bias_correction_on_the_device(beta, steps, rate, backend):
    average, grad = vector(63, torch.float32).square(), vector(63, torch.float32)
    step_sizes = torch.empty(63)
    count = torch.tensor(float(steps))
    with strict(), use_backend(backend):
        adaptive_setup_(average, grad, beta, rate, 1e-5, step_sizes, num_steps=count)
    v = beta * average.double() + (1 - beta) * grad.double() ** 2
    assert_accurate(
        step_sizes, 0.0123 * (1 - beta ** (steps + 1)) ** 0.5 / (v.sqrt() + 1e-5), rtol=3e-7
    )
    assert float(count) == steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_setup_is_that_of_torch_to_the_last_digits(dtype):
    average, grad = vector(1000, dtype).square(), vector(1000, dtype)
    average[:2] = torch.tensor([1e-40, 1e-30], dtype=dtype)
    grad[:2] = 0
    ours, plain = ([torch.empty(1000, dtype=dtype) for _ in range(3)] for _ in range(2))
    with strict():
        adaptive_setup_(average, grad, 0.999, 1e-4, 0.0, *ours)
    reference.adaptive_setup_(average, grad, 0.999, 1e-4, 0.0, *plain)
    for actual, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(actual, expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(
    ("n", "dtype", "advance"),
    [*((*at, None) for at in SIZES_AND_DTYPES), (63, FP32, True), (63, FP32, False)],
)
def test_average(n, dtype, advance):
    average, grad = vector(n, dtype).square(), vector(n, dtype)
    truth = average.double()
    if advance is not False:
        truth = 0.99 * truth + 0.01 * grad.double() ** 2
    flag = None if advance is None else torch.tensor(advance)
    with strict():
        average_squares_(average, grad, 0.99, flag)
    assert_accurate(average, truth, rtol=0.0 if advance is False else None)


def test_setup_repeats_bit_by_bit_in_any_order_of_programs():
    results = []
    for order in ORDERS:
        torch.manual_seed(0)
        average, grad = vector(5001, torch.float32).square(), vector(5001, torch.float32)
        outputs = [torch.empty(5001) for _ in range(3)]
        with strict(order=order):
            adaptive_setup_(average, grad, 0.99, 0.1, 1e-5, *outputs)
            average_squares_(average, grad, 0.99)
        results.append(torch.cat([*outputs, average]))
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("n", [1000, 1024, 1025, 3000])
def test_the_plain_form_is_the_same_in_blocks(n, monkeypatch):
    average, grad = vector(n, torch.float64).square(), vector(n, torch.float64)
    results = []
    for block in (256, n):
        monkeypatch.setattr(reference, "BLOCK", block)
        outputs = [torch.empty(n, dtype=torch.float64) for _ in range(3)]
        kept = average.clone()
        reference.adaptive_setup_(average, grad, 0.9, 0.1, 1e-5, *outputs, sign=-1)
        reference.average_squares_(kept, grad, 0.9)
        results.append([*outputs, kept])
    for ours, whole in zip(*results, strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-14, atol=0)
