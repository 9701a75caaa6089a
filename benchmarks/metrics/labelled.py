"""CIFAR-10 with its labels, which judges need and generators must not see."""

import os
from pathlib import Path

from torch import Tensor


def load_labelled(folder: Path | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return images [n, 3, 32, 32] uint8 and labels [n] of the splits "train" and "test".

    Args:
        folder: ``cifar-10-batches-py`` or what holds it; by default ``COMPOPT_DATA``.

    Raises:
        benchmarks.cifar10.errors.BenchmarkError: if no folder is given, or a file is missing or
            not the published one.
    """
    from benchmarks.cifar10.errors import BenchmarkError
    from benchmarks.cifar10.official import FOLDER, TEST, read_official

    named = folder or os.environ.get("COMPOPT_DATA")
    if not named:
        raise BenchmarkError(f"`--data` or COMPOPT_DATA must name the folder with {FOLDER}.")
    inside = Path(named) / FOLDER
    return read_official(inside if (inside / TEST).exists() else Path(named))
