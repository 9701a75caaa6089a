"""Read a tree of the user's image files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from benchmarks.cifar10.errors import BenchmarkError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
SIZE = 32


def is_tree(folder: Path) -> bool:
    """Return True if ``folder`` has a subfolder ``train``."""
    return (folder / "train").is_dir()


def read_tree(folder: Path) -> tuple[Tensor, Tensor | None]:
    """Return the images [n, 3, 32, 32] uint8 below ``train``, and those below ``test`` or None.

    Files are read in the order of their paths. Images of other sizes are cropped to their central
    square and resized (Lanczos); grey images are converted to three channels.

    Raises:
        BenchmarkError: if there is no image, or a file is damaged.
    """
    test = folder / "test"
    return _read(folder / "train"), _read(test) if test.is_dir() else None


def _read(folder: Path) -> Tensor:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise BenchmarkError(
            f"There is no image below {folder}. Files must end in one of {sorted(SUFFIXES)}."
        )
    pixels = np.stack([_pixels(file) for file in files])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _pixels(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as image:
            whole = image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise BenchmarkError(f"{file} is not a whole image: {error}") from error
    if whole.size != (SIZE, SIZE):
        side = min(whole.size)
        left, top = ((length - side) // 2 for length in whole.size)
        square = whole.crop((left, top, left + side, top + side))
        whole = square.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    return np.asarray(whole, dtype=np.uint8)
