"""Tests of this folder need a device, and skip without one. Start them with TRITON_INTERPRET=0."""

import os

import pytest
import torch


def _why_not() -> str:
    if not torch.cuda.is_available():
        return "There is no CUDA device here."
    return ""


@pytest.fixture(autouse=True)
def _device() -> None:
    if reason := _why_not():
        pytest.skip(reason)
    if os.environ["TRITON_INTERPRET"] == "1":
        pytest.fail("Kernels are interpreted in this process: start it with TRITON_INTERPRET=0.")
