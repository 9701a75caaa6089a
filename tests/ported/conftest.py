"""Ported programs run in double precision, so that steps can be compared with dense ones."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def in_double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
