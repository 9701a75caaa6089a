"""Made-up images for tests of metrics: ten classes of smooth coloured patterns."""

import torch
from torch import Tensor


def patterns(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return images [n, 3, 32, 32] uint8 and labels [n] of classes in random order.

    A class has a colour and a direction of stripes; images of a class differ in phase, period,
    brightness and a blob.
    """
    random = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=random)

    labels = torch.randint(10, (n,), generator=random)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    angle = labels[:, None, None] * torch.pi / 10
    period, phase = uniform(5, 14, 1, 1), uniform(0, 6.3, 1, 1)
    stripes = torch.sin(6.3 / period * (x * angle.cos() + y * angle.sin()) + phase)
    distance = (x - uniform(4, 28, 1, 1)) ** 2 + (y - uniform(4, 28, 1, 1)) ** 2
    blob = torch.exp(-distance / uniform(8, 60, 1, 1))
    colors = torch.rand(10, 3, generator=torch.Generator().manual_seed(99))[labels]
    light = colors[:, :, None, None] * (0.6 + 0.4 * stripes[:, None]) + 0.5 * blob[:, None]
    images = (255 * light * uniform(0.5, 1, 1, 1, 1)).clamp(0, 255)
    return images.to(torch.uint8), labels
