"""What the tests of kernels share: sizes, orders of programs, memory that was never written."""

from typing import Any

import torch
from torch import Tensor

SIZES = (0, 1, 63, 1000, 2**16 + 1)
ORDERS = (None, None, "reverse", 0, 1)
"""Of programs. The first two alike, to see that results repeat at all."""

RTOL = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 1e-3}
"""Relative error in the Euclidean norm that a kernel may make, by dtype of its output."""

_empty = torch.empty


def nan_empty(*args: Any, **kwargs: Any) -> Tensor:
    """Return memory that was never written: ``torch.empty`` filled with NaN."""
    tensor = _empty(*args, **kwargs)
    # Bytes of 255 are NaN in every floating-point dtype.
    return tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max)


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
