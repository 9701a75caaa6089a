"""The averaged generator, and samples of a generator."""

import copy

import torch
from torch import Tensor, nn

from benchmarks.cifar10.batches import derived_seed
from benchmarks.cifar10.errors import Diverged

CHUNK = 250
"""Samples made at once."""
NORM_SIZE = 128
"""Images of a batch from which batch normalization takes statistics."""


class ExponentialAverage:
    """An exponential average of a network's parameters; its buffers are copies.

    Args:
        module: the network; not changed.
        decay: share of the average that an update keeps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Update the average with the network after a step."""
        averages, params = list(self.module.parameters()), list(module.parameters())
        for average, param in zip(averages, params, strict=True):
            average.lerp_(param, 1 - self.decay)
        for average, buffer in zip(self.module.buffers(), module.buffers(), strict=True):
            average.copy_(buffer)


@torch.no_grad()
def sample(generator: nn.Module, count: int, *, seed: int, norm_images: int = 2048) -> Tensor:
    """Return images [count, 3, size, size] uint8 on the CPU, a function of weights and seed.

    The generator runs in evaluation mode with batch normalization statistics recomputed for its
    current weights. Neither the generator nor global state changes.

    Args:
        generator: network with an attribute ``latent_size``.
        count: number of images.
        seed: seed of the noise.
        norm_images: number of noise vectors for the statistics, in batches of 128.

    Raises:
        Diverged: if an image is not finite.
    """
    device = next(generator.parameters()).device
    judged = copy.deepcopy(generator)
    latent_size = judged.latent_size
    random = torch.Generator().manual_seed(derived_seed("samples", seed))

    def noise(size: int) -> Tensor:
        return torch.randn(size, latent_size, generator=random).to(device)

    norms = [m for m in judged.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        # None selects the plain mean over batches.
        norm.momentum = None
    if norms:
        judged.train()
        for start in range(0, norm_images, NORM_SIZE):
            judged(noise(min(NORM_SIZE, norm_images - start)))
    judged.eval()
    chunks = [
        to_uint8(judged(noise(min(CHUNK, count - start)))).cpu() for start in range(0, count, CHUNK)
    ]
    return torch.cat(chunks)


def to_uint8(images: Tensor) -> Tensor:
    """Return uint8 images from images in [-1, 1]."""
    if not images.isfinite().all():
        raise Diverged("The generator's images are not finite.")
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
