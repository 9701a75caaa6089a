"""Settings that all tests share."""

import os

# Before anything imports Triton. Tests that compile kernels start a process without it, and those
# that run them on a device are started with TRITON_INTERPRET=0.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
