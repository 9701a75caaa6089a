"""Settings that all tests share."""

import os
from pathlib import Path

# Before anything imports Triton. Tests that compile kernels start a process without it, and those
# that run them on a device are started with TRITON_INTERPRET=0.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores among the processes that run tests side by side."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files and folders without device tests where only those are asked for.

    They may import what a machine with a device does not have.
    """
    if config.option.markexpr != "gpu":
        return None
    files = collection_path.rglob("*.py") if collection_path.is_dir() else (collection_path,)
    return None if any("pytest.mark.gpu" in file.read_text() for file in files) else True
