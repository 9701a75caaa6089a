"""Images and noise of each step, as a function of seed and step only.

Batches have no state, so a run that resumes at any step continues with the same batches as without
interruption, and all cells of a seed use the same images in the same order.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.cifar10.data import to_float


def derived_seed(*parts: object) -> int:
    """Return a 63-bit seed from ``parts``; different parts give independent seeds."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Draw:
    """Inputs of one evaluation of the losses.

    Attributes:
        real: [batch, 3, 32, 32] in [-1, 1].
        noise: [batch, latent].
        second_noise: [batch, latent], for the player that moves second.
        random: random number generator for penalties.
    """

    real: Tensor
    noise: Tensor
    second_noise: Tensor
    random: torch.Generator

    def part(self, share: float) -> "Draw":
        """Return the first ``share`` of images and noise vectors, at least one."""
        count = max(1, round(share * len(self.real)))
        real, *noise = (t[:count] for t in (self.real, self.noise, self.second_noise))
        return Draw(real, *noise, self.random)


class Batches:
    """Epochs of shuffled images, and noise.

    Args:
        images: [n, 3, 32, 32] uint8.
        batch_size: at most n; an incomplete last batch of an epoch is dropped.
        latent_size: length of a noise vector.
        seed: seed of order and noise.
        device: device of the draws. Random numbers are drawn on the CPU, so that all devices get
            the same.
        part: ``(rank, size)``: take only every size-th row of each draw, starting at ``rank``.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        batch_size: int,
        latent_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self._images = images
        self._batch_size = batch_size
        self._latent_size = latent_size
        self._seed = seed
        self._device = device
        self._part = part
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    @cached_property
    def per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return len(self._images) // self._batch_size

    def draw(self, index: int) -> Draw:
        """Return draw number ``index`` of the run, counted from 0."""
        epoch, place = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            random = torch.Generator().manual_seed(derived_seed("order", self._seed, epoch))
            self._order = torch.randperm(len(self._images), generator=random)
            self._epoch = epoch
        rows = self._order[place * self._batch_size : (place + 1) * self._batch_size]
        random = torch.Generator().manual_seed(derived_seed("noise", self._seed, index))
        noise = torch.randn(2, len(rows), self._latent_size, generator=random)
        rank, size = self._part
        return Draw(
            real=to_float(self._images[rows[rank::size]]).to(self._device),
            noise=noise[0, rank::size].to(self._device),
            second_noise=noise[1, rank::size].to(self._device),
            random=torch.Generator().manual_seed(
                derived_seed("terms", self._seed, index, *((rank,) if size > 1 else ()))
            ),
        )
