"""Load the images: from a given folder, the cache, or a download."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.official import FOLDER, MD5, TEST, TRAIN, read_official
from benchmarks.cifar10.tree import is_tree, read_tree

VARIABLE = "COMPOPT_DATA"


@dataclass(frozen=True)
class Images:
    """Real images.

    Attributes:
        train: [n, 3, size, size] uint8, in a fixed order.
        test: held-out images in the same form, or None.
        source: their name in reports, "CIFAR-10" or "image folder".
    """

    train: Tensor
    test: Tensor | None
    source: str

    @property
    def sha256(self) -> str:
        """Digest of the training images, which identifies the data set."""
        return hashlib.sha256(self.train.numpy().data).hexdigest()

    def resized(self, size: int) -> "Images":
        """Return images of ``size`` pixels: rounded means over squares of pixels."""
        if size == self.train.shape[-1]:
            return self
        test = None if self.test is None else _means(self.test, size)
        return Images(_means(self.train, size), test, self.source)

    def describe(self) -> dict[str, str | int]:
        """Return the description of the data that results contain."""
        return {
            "source": self.source,
            "train_images": len(self.train),
            "test_images": 0 if self.test is None else len(self.test),
            "train_sha256": self.sha256,
        }


def _means(images: Tensor, size: int) -> Tensor:
    # Convert in parts, because float images take four times the memory.
    parts = [
        functional.adaptive_avg_pool2d(part.float(), size).round().to(torch.uint8)
        for part in images.split(1000)
    ]
    return torch.cat(parts)


def cache_folder() -> Path:
    """Return the folder for downloads: ``COMPOPT_CACHE``, or the user's cache."""
    own = os.environ.get("COMPOPT_CACHE")
    if own:
        return Path(own) / "data"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compopt" / "data"


def _download(cache: Path) -> Path:
    # Imported here so that local data does not need the download library.
    from benchmarks.cifar10.download import download

    cache.mkdir(parents=True, exist_ok=True)
    return download(cache)


def load_images(
    folder: Path | None = None,
    *,
    checksums: Mapping[str, str] = MD5,
    fetch: Callable[[Path], Path] = _download,
) -> Images:
    """Return the images to train on.

    Sources are tried in this order: ``folder``, ``COMPOPT_DATA``, the cache, a download to the
    cache. A folder may be ``cifar-10-batches-py``, contain it, or be a tree of image files with the
    subfolder ``train`` and, optionally, ``test``.

    Args:
        folder: the user's folder, or None.
        checksums: checksums of the official files.
        fetch: downloads into a cache and returns the official folder.

    Raises:
        BenchmarkError: if there are no such images, they are damaged, or cannot be downloaded.
    """
    named = folder or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is None:
        cached = _official_folder(cache_folder())
        return _official(cached or fetch(cache_folder()), checksums)
    found = _official_folder(named)
    if found is not None:
        return _official(found, checksums)
    if is_tree(named):
        train, test = read_tree(named)
        return Images(train, test, "image folder")
    origin = "--data" if folder else VARIABLE
    raise BenchmarkError(
        f"There are no images at {named} ({origin}). It must be {FOLDER}, hold it, or be a tree of "
        "image files with a part named `train`."
    )


def _official_folder(folder: Path) -> Path | None:
    for candidate in (folder / FOLDER, folder):
        # One batch file is enough: the error then names the missing ones.
        if any((candidate / name).exists() for name in (*TRAIN, TEST)):
            return candidate
    return None


def _official(folder: Path, checksums: Mapping[str, str]) -> Images:
    splits = read_official(folder, checksums)
    return Images(splits["train"][0], splits["test"][0], "CIFAR-10")


def to_float(images: Tensor) -> Tensor:
    """Return uint8 images scaled to [-1, 1], float32."""
    return images.to(torch.float32).div_(127.5).sub_(1.0)
