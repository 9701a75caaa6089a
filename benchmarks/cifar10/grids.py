"""Image grids of samples."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.cifar10.errors import BenchmarkError

COLUMNS = 8


def save_grid(images: Tensor, file: Path, *, gap: int = 2) -> None:
    """Write images [n, 3, h, w] uint8 as one PNG, eight in a row.

    Raises:
        BenchmarkError: if the file cannot be written.
    """
    rows = -(-len(images) // COLUMNS)
    height, width = images.shape[2] + gap, images.shape[3] + gap
    canvas = torch.full((rows * height + gap, COLUMNS * width + gap, 3), 255, dtype=torch.uint8)
    for index, image in enumerate(images):
        top, left = gap + index // COLUMNS * height, gap + index % COLUMNS * width
        canvas[top : top + height - gap, left : left + width - gap] = image.permute(1, 2, 0)
    try:
        Image.fromarray(canvas.numpy()).save(file)
    except OSError as error:
        raise BenchmarkError(f"{file} could not be written: {error.strerror}.") from error
