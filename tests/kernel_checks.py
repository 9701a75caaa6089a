"""What the tests of kernels share: sizes, orders of programs, memory that was never written."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compopt.kernels._backend import has_wide_products

SIZES = (0, 1, 63, 1000, 2**16 + 1)
ORDERS = (None, None, "reverse", 0, 1)
"""Of programs. The first two alike, to see that results repeat at all."""

FP32, FP64, BF16 = torch.float32, torch.float64, torch.bfloat16
# Sizes decide about masks, dtypes about sums: not both together.
SIZES_AND_DTYPES = (*((n, FP32) for n in SIZES), (1000, FP64), (1000, BF16), (2**16 + 1, BF16))

RTOL = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 1e-3}
"""Relative error in the Euclidean norm that a kernel may make, by dtype of its output."""

_empty, _empty_like, _new_empty = torch.empty, torch.empty_like, torch.Tensor.new_empty


def _unwritten(tensor: Tensor) -> Tensor:
    # Bytes of 255 are NaN in every floating-point dtype.
    if tensor.dtype is torch.bool:
        return tensor.fill_(True)
    return tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)


def nan_empty(*args: Any, **kwargs: Any) -> Tensor:
    """Return memory that was never written: ``torch.empty`` filled with NaN."""
    return _unwritten(_empty(*args, **kwargs))


def fill_new_memory_with_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every way to get memory that was never written fill it with NaN."""
    monkeypatch.setattr(torch, "empty", nan_empty)
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: _unwritten(_empty_like(*a, **k)))
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: _unwritten(_new_empty(*a, **k)))


def vector(n: int, dtype: torch.dtype) -> Tensor:
    """Return random numbers [n]."""
    return torch.randn(n, dtype=torch.float64).to(dtype)


def assert_accurate(
    actual: Tensor,
    truth: Tensor,
    *,
    rtol: float | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Raise unless ``actual`` is as close to ``truth`` as its dtype allows, and finite."""
    assert actual.shape == truth.shape
    assert torch.isfinite(actual).all()
    error = float(torch.linalg.vector_norm(actual.double() - truth.double()))
    norm = float(torch.linalg.vector_norm(truth.double()))
    allowed = RTOL[dtype or actual.dtype] if rtol is None else rtol
    assert error <= allowed * norm, (
        f"relative error {error / max(norm, 1e-300):.2e} > {allowed:.0e}"
    )


needs_wide_products = pytest.mark.skipif(
    not has_wide_products(), reason="Triton multiplies float64 matrices from 3.5 on."
)


def skip_without_wide_products(form: Any, dtype: torch.dtype = torch.float64) -> None:
    """Skip what multiplies float64 matrices in Triton where it cannot: torch does it there."""
    if form.__name__.endswith(".triton") and dtype == torch.float64 and not has_wide_products():
        pytest.skip("Triton multiplies float64 matrices from 3.5 on.")


def shapes_of(tensors, sizes):
    """Return the shapes of tensors; of missing ones those of vectors of these sizes."""
    return [
        torch.Size([size]) if tensor is None else tensor.shape
        for tensor, size in zip(tensors, sizes, strict=True)
    ]
