"""The diversity penalty and the power iteration against dense float64."""

import pytest
import torch
from covering import pairwise
from kernel_checks import needs_wide_products, skip_without_wide_products
from strict_interpreter import strict

from compopt.kernels import power_iteration, use_backend
from compopt.kernels.penalties import reference
from compopt.penalties import block_power_iteration, diversity_penalty

SHAPES = {"one row": (1, 3), "63": (63, 20), "tall": (130, 7), "wide": (5, 200), "1000": (65, 1000)}
TAUS = {"both": (0.1, 0.2), "positive only": (0.2, 2.0), "all": (0.0, 0.0), "none": (2.0, 2.0)}


@pytest.fixture(params=["torch", "triton"])
def form(request):
    if request.param == "torch":
        return reference
    return pytest.importorskip("compopt.kernels.penalties.triton")


def backend_of(form):
    return "torch" if form is reference else "triton"


def dense(weight, tau_pos, tau_neg):
    norms = weight.norm(dim=1, keepdim=True)
    unit = weight / torch.where(norms > 0, norms, 1.0)
    cosine = unit @ unit.T
    counts = (cosine > tau_pos) | (cosine < -tau_neg)
    counts = counts & ~torch.eye(len(weight), dtype=torch.bool)
    return torch.where(counts, cosine, 0.0).square().sum(), int(counts.sum())


def both(form, weight, taus, **options):
    with strict():
        value, inverse_norms = form.diversity_forward(weight, *taus, **options)
        grad = torch.tensor(0.7, dtype=value.dtype)
        return value, form.diversity_backward(grad, weight, inverse_norms, *taus, **options)


def expected(weight, taus):
    leaf = weight.double().requires_grad_()
    value, _ = dense(leaf, *taus)
    (grad,) = torch.autograd.grad(0.7 * value, leaf, materialize_grads=True)
    return value.detach(), grad


def assert_close(found, wanted, rtol):
    for ours, theirs in zip(found, wanted, strict=True):
        error, scale = (ours.double() - theirs).norm(), theirs.norm()
        assert error <= rtol * scale.clamp_min(1.0), f"{error=} {scale=}"


@pytest.mark.parametrize(
    ("shape", "taus"),
    [
        *(
            pytest.param(shape, "both", marks=[pytest.mark.slow] if shape == "1000" else [])
            for shape in SHAPES
        ),
        *(("63", taus) for taus in TAUS if taus != "both"),
    ],
)
def test_diversity_in_float64(form, shape, taus):
    skip_without_wide_products(form)
    weight = torch.randn(SHAPES[shape], dtype=torch.float64)
    assert_close(both(form, weight, TAUS[taus]), expected(weight, TAUS[taus]), 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_diversity_in_narrower_types(form, dtype):
    # Products of narrow entries are exact in float32; only the gradient is rounded at the end.
    weight = torch.randn(70, 33).to(dtype)
    rtol = 1e-5 if dtype == torch.float32 else torch.finfo(dtype).eps
    # A threshold that no cosine is near, or one rounding could decide whether a pair counts.
    found = both(form, weight, (0.0, 1.0))
    assert found[1].dtype == dtype
    assert_close(found, expected(weight, (0.0, 1.0)), rtol)


@pytest.mark.parametrize(("precision", "rtol"), [("tf32", 2e-3), ("tf32x3", 1e-5)])
def test_precision_of_float32_products(precision, rtol):
    form = pytest.importorskip("compopt.kernels.penalties.triton")
    weight = torch.randn(70, 33)
    found = both(form, weight, (0.0, 0.0), precision=precision)
    assert_close(found, expected(weight, (0.0, 0.0)), rtol)


def test_zero_rows_count_nothing_and_get_no_gradient(form):
    skip_without_wide_products(form)
    weight = torch.randn(9, 4, dtype=torch.float64)
    weight[3] = 0
    value, grad = both(form, weight, (0.0, 0.0))
    keep = [i for i in range(9) if i != 3]
    assert_close([value, grad[keep]], expected(weight[keep], (0.0, 0.0)), 1e-12)
    assert not grad[3].any()


def test_strips_change_nothing(form, monkeypatch):
    skip_without_wide_products(form)
    weight = torch.randn(50, 6, dtype=torch.float64)
    whole = both(form, weight, (0.1, 0.3))
    monkeypatch.setattr(form, "STRIP_ENTRIES", 50 * 7)
    assert_close(both(form, weight, (0.1, 0.3)), whole, 1e-14)


def test_no_rows(form):
    value, grad = both(form, torch.randn(0, 4), (0.1, 0.1))
    assert value == 0
    assert grad.shape == (0, 4)


@pytest.mark.parametrize("order", ["reverse", 5])
def test_order_of_programs_changes_no_bit(order):
    form = pytest.importorskip("compopt.kernels.penalties.triton")
    weight, block = torch.randn(150, 20), torch.randn(20, 3)
    results = []
    for one in (None, order):
        with strict(order=one):
            value, inverse_norms = form.diversity_forward(weight, 0.1, 0.1)
            grad = form.diversity_backward(value, weight, inverse_norms, 0.1, 0.1)
            results.append([value, grad, *form.gram_product(weight, block)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pairwise(shape=[(1, 1, 1), (63, 5, 3), (130, 70, 16), (65, 33, 20)], transposed=[False, True])
def test_gram_product(form, shape, transposed):
    skip_without_wide_products(form)
    n, d, k = shape
    weight = torch.randn(n, d, dtype=torch.float64)
    weight = torch.randn(d, n, dtype=torch.float64).T if transposed else weight
    block = torch.randn(d, k, dtype=torch.float64)
    with strict():
        product, gram = form.gram_product(weight, block)
    assert_close([product, gram], [weight @ block, (weight @ block).T @ (weight @ block)], 1e-13)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_power_iteration_finds_the_leading_triplets(form, dtype, rtol):
    skip_without_wide_products(form, dtype)
    left, _ = torch.linalg.qr(torch.randn(40, 8, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(25, 8, dtype=torch.float64))
    true = torch.tensor([5.0, 4.0, 3.0, 2.0, 0.1, 0.05, 0.02, 0.0], dtype=torch.float64)
    weight = ((left * true) @ right.T).to(dtype)
    with strict(), use_backend(backend_of(form)):
        found = power_iteration(weight, torch.randn(25, 4, dtype=dtype), 6)
    assert found.values.dtype == dtype
    assert_close([found.values], [true[:4]], rtol)
    eye = torch.eye(4, dtype=torch.float64)
    for vectors in (found.left, found.right):
        # The error of a Cholesky factor grows with the square of the condition, here (5 / 2)^2,
        # and the shift against singularity is 16 times that of rounding.
        assert_close([vectors.T @ vectors], [eye], 400 * torch.finfo(dtype).eps)
    assert_close([weight @ found.right], [found.left.double() * true[:4]], 1e-4)


def test_power_iteration_of_a_singular_and_of_a_zero_matrix(form):
    skip_without_wide_products(form)
    vector = torch.randn(12, dtype=torch.float64)
    start = torch.randn(9, 3, dtype=torch.float64)
    for weight in (
        torch.outer(vector, torch.ones(9, dtype=torch.float64)),
        torch.zeros(12, 9).double(),
    ):
        with strict(), use_backend(backend_of(form)):
            found = power_iteration(weight, start, 2)
        assert all(t.isfinite().all() for t in found)
        norm = torch.linalg.matrix_norm(weight, 2)
        assert abs(found.values[0] - norm) <= 1e-7 * norm
        assert found.values[1] <= 1e-7 * max(norm, 1.0)


@pytest.mark.parametrize("form", ["torch", "triton"], indirect=True)
def test_orthonormal_products_of_nearly_dependent_columns(form):
    skip_without_wide_products(form)
    left, _ = torch.linalg.qr(torch.randn(60, 4, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    weight = left * torch.tensor([1.0, 1e-4, 1e-8, 1e-12], dtype=torch.float64)
    basis, factor = form.orthonormal_product(weight, right)
    assert_close([basis.T @ basis], [torch.eye(4, dtype=torch.float64)], 1e-13)
    assert_close([basis @ factor], [weight @ right], 1e-14)
    assert not factor.tril(-1).any()


@needs_wide_products
def test_the_penalties_are_made_of_these_kernels():
    rows = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    results = []
    for backend in ("triton", "torch"):
        with use_backend(backend), strict() as run:
            value = diversity_penalty(rows, threshold=0.2)
            (grad,) = torch.autograd.grad(value, rows)
            start = torch.eye(5, 2, dtype=torch.float64)
            values, _ = block_power_iteration(rows, 2, start=start)
        launched = ["gram_strip_kernel"] * 2 + ["gram_product_kernel"] * 40
        assert run.launches == (launched if backend == "triton" else [])
        results.append([value.detach(), grad, values])
    assert_close(*results, 1e-12)
