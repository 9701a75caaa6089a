"""Small images and configurations that runs in the tests share."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import Forked
from image_cases import random_images
from PIL import Image

from benchmarks.cifar10 import sweep
from benchmarks.cifar10.config import RunConfig
from benchmarks.cifar10.data import Images
from benchmarks.cifar10.protocol import run_config


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Runs set the number of threads; tests that follow keep theirs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's data or cache."""
    monkeypatch.setenv("COMPOPT_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("COMPOPT_DATA", raising=False)


@pytest.fixture
def _forked_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of a sweep have processes of their own, but these need not import torch again."""
    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(Popen=Forked))


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 48 training images and 16 others, as a user would have them."""
    root = tmp_path_factory.mktemp("tree")
    for part, count in (("train", 48), ("test", 16)):
        for index, image in enumerate(random_images(count, seed=count)):
            file = root / part / "abc"[index % 3] / f"{index:03d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(image.permute(1, 2, 0))).save(file)
    return root


@pytest.fixture
def images() -> Images:
    return Images(random_images(48), random_images(16, seed=1), "CIFAR-10")


@pytest.fixture
def tiny() -> RunConfig:
    """A run of a second."""
    return run_config(
        {
            "name": "tiny",
            "network": {"width": 1 / 32, "latent_size": 8},
            "optimizer": {"kind": "acgd", "lr": 1e-3},
            "steps": 12,
            "batch_size": 8,
            "log_every": 3,
            "checkpoint_every": 5,
            "evaluation": {
                "at": [0, 4],
                "images": 8,
                "final_images": 16,
                "ema_images": 40,
                "norm_images": 16,
            },
        }
    )
