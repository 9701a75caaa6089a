"""Made-up images for a dry run of the CIFAR-10 stages."""

from pathlib import Path


def write_images(folder: Path, count: int = 64) -> Path:
    """Write a tree of random image files with both parts; return its folder."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = random.integers(256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / part / f"{index:03}.png")
    return folder
