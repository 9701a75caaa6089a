"""Tests of this folder need a device, and skip without one. Start them with TRITON_INTERPRET=0.

With ``COMPOPT_TEST_DEVICE=cpu`` kernels are interpreted and the rest runs on the CPU: that shows
whether the tests themselves work, on a machine without a device.
"""

import os

import pytest
import torch

DEVICE = os.environ.get("COMPOPT_TEST_DEVICE", "cuda")


@pytest.fixture(autouse=True)
def device() -> torch.device:
    """Return where to run."""
    if DEVICE == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("There is no CUDA device here.")
    if os.environ["TRITON_INTERPRET"] == "1":
        pytest.fail("Kernels are interpreted in this process: start it with TRITON_INTERPRET=0.")
    return torch.device("cuda")


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """Return a device that has streams and graphs."""
    if device.type != "cuda":
        pytest.skip("The CPU has no streams and graphs.")
    return device


@pytest.fixture
def second(cuda: torch.device) -> torch.device:
    """Return a device that is not the current one."""
    if torch.cuda.device_count() < 2:
        pytest.skip("There is one CUDA device here, not two.")
    return torch.device("cuda:1")
