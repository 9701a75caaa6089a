"""Settings that all tests share."""

import os
from pathlib import Path

# Before anything imports Triton. Tests that compile kernels start a process without it, and those
# that run them on a device are started with TRITON_INTERPRET=0.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest
import torch

LONG = (
    *("cifar10/test_sweep.py", "cifar10/test_queue.py", "compiled/test_steps.py"),
    *("examples/test_examples.py", "test_site.py", "test_commands.py", "test_device_tests.py"),
    *("distributed/test_every_optimizer.py", "distributed/test_elastic.py", "test_docs.py"),
    *("distributed/test_replicated.py", "distributed/test_sharded.py", "test_compiled_code.py"),
)
"""Files that take longest."""


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pytest_configure(config: pytest.Config) -> None:
    """Share the cores among the processes that run tests side by side."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long files first: a process that starts one last keeps the others waiting."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files and folders without device tests where only those are asked for.

    They may import what a machine with a device does not have.
    """
    if config.option.markexpr != "gpu":
        return None
    files = collection_path.rglob("*.py") if collection_path.is_dir() else (collection_path,)
    return None if any("pytest.mark.gpu" in file.read_text() for file in files) else True
