"""Images for tests."""

import torch
from torch import Tensor


def random_images(count: int, seed: int = 0) -> Tensor:
    """Return images [count, 3, 32, 32] uint8."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
