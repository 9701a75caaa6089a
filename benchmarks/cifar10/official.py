"""Read the official ``cifar-10-batches-py`` files if their checksums match the published ones."""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cifar10.errors import BenchmarkError

FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
MD5 = MappingProxyType(
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    }
)
"""The published checksum of each file."""

PICKLED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
"""All that the official files name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in PICKLED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a batch of images.")
        if name == "_reconstruct":
            # The function in any NumPy version: importing it by its old name warns in NumPy 2.
            return np.ndarray.__reduce__(np.empty(0, dtype=np.uint8))[0]
        return getattr(np, name)


def read_batch(file: Path, md5: str) -> tuple[Tensor, Tensor]:
    """Return the images [n, 3, 32, 32] uint8 and labels [n] of one file.

    Args:
        file: the published file, a pickle.
        md5: its checksum, verified before unpickling.

    Raises:
        BenchmarkError: if the file is missing or its checksum differs.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BenchmarkError(
            f"{file} cannot be read ({error.strerror}). The folder must hold the six batch files "
            f"of {FOLDER}."
        ) from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise BenchmarkError(
            f"{file} ({len(content):,} bytes) has the MD5 {found}, must have {md5}. It is "
            "truncated or another file: remove the folder, and it is downloaded anew, or get it "
            "again."
        )
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        images = np.ascontiguousarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = torch.tensor(batch[b"labels"], dtype=torch.int64)
    except (pickle.UnpicklingError, KeyError, TypeError, ValueError, EOFError) as error:
        raise BenchmarkError(f"{file} is not a batch of CIFAR-10 images: {error}") from error
    return torch.from_numpy(images), labels


def read_official(
    folder: Path, checksums: Mapping[str, str] = MD5
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the splits "train" and "test", images and labels in the official order.

    Args:
        folder: ``cifar-10-batches-py``.
        checksums: checksum of each file.

    Raises:
        BenchmarkError: as :func:`read_batch`.

    Cost: 184 MB are read and hashed, about half a second.
    """
    train = [read_batch(folder / name, checksums[name]) for name in TRAIN]
    images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
    return {"train": (images, labels), "test": read_batch(folder / TEST, checksums[TEST])}
