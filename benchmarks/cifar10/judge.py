"""Metrics of samples against the training images."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.cifar10.data import Images
from benchmarks.cifar10.errors import BenchmarkError

SIZE = 32
"""Pixels of the images that feature networks take."""


def enlarged(images: Tensor) -> Tensor:
    """Return uint8 images of 32 pixels; smaller ones are interpolated bilinearly and rounded."""
    if images.shape[-1] == SIZE:
        return images
    parts = [
        functional.interpolate(part.float(), (SIZE, SIZE), mode="bilinear").round().to(torch.uint8)
        for part in images.split(1000)
    ]
    return torch.cat(parts)


class Judge:
    """Calls `benchmarks.metrics` with one reference for each number of samples.

    Args:
        images: the real images: training images are the reference, held-out ones give the floor.
        device: device that computes the features.
    """

    def __init__(self, images: Images, device: str = "cpu") -> None:
        # Samples are enlarged in the same way.
        test = None if images.test is None else enlarged(images.test)
        self._images = Images(enlarged(images.train), test, images.source)
        self._device = device
        self._references: dict[int, Any] = {}

    def check(self, count: int, names: list[str]) -> None:
        """Raise BenchmarkError unless the named metrics can be computed for ``count`` samples."""
        if not names:
            return
        from benchmarks.metrics import METRICS

        unknown = sorted(set(names) - {*METRICS, "inception"})
        if unknown:
            raise BenchmarkError(f"There are no metrics {unknown}; known are {sorted(METRICS)}.")
        if not 11 <= count <= len(self._images.train):
            raise BenchmarkError(
                f"The number of samples judged must be in 11..{len(self._images.train)}, the "
                f"number of real images, got {count}."
            )

    def scores(self, samples: Tensor, names: list[str]) -> dict[str, Any]:
        """Return `benchmarks.metrics.evaluate` of uint8 samples; {} without names."""
        if not names:
            return {}
        # Imported here so that runs without metrics do not need its packages.
        from benchmarks.metrics import Reference, evaluate

        samples = enlarged(samples)
        count = len(samples)
        if count not in self._references:
            self._references[count] = Reference(
                self._images.train,
                n=count,
                name="train" if self._images.source == "CIFAR-10" else self._images.source,
                held_out=self._images.test,
                device=self._device,
            )
        return evaluate(samples, self._references[count], tuple(names))
