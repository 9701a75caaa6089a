"""Known faults of images, in known order, that metrics must notice."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def noisy(images: Tensor, deviation: float, random: torch.Generator) -> Tensor:
    """Return images [n, 3, h, w] uint8 with Gaussian noise of a deviation in levels of 255."""
    noise = torch.randn(images.shape, generator=random)
    return (images + deviation * noise).round().clamp(0, 255).to(torch.uint8)


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Return images under a Gaussian blur of a deviation in pixels, edges reflected."""
    radius = max(int(4 * deviation + 0.5), 1)
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-(steps**2) / (2 * deviation**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = functional.pad(images.float(), (radius,) * 4, mode="reflect")
    x = functional.conv2d(functional.conv2d(x, kernel, groups=3), kernel.mT, groups=3)
    return x.round().clamp(0, 255).to(torch.uint8)


def repeated(images: Tensor, distinct: int) -> Tensor:
    """Return as many images as given, made of the first ``distinct`` ones over and over."""
    return images[torch.arange(len(images)) % distinct]


def of_classes(images: Tensor, labels: Tensor, classes: int, n: int) -> Tensor:
    """Return the first n images of the first so many classes.

    Raises:
        ValueError: if there are fewer.
    """
    chosen = images[labels < classes]
    if len(chosen) < n:
        raise ValueError(f"{classes} classes have {len(chosen)} images, {n} are needed.")
    return chosen[:n]


@dataclass(frozen=True)
class Series:
    """Sets of images with a fault that grows from one to the next.

    Attributes:
        name: of the fault.
        strengths: in rising order; the sets are labelled with them.
        make: returns n images at a strength.
        blind: metrics that cannot see it, by the first letters of their names.
    """

    name: str
    strengths: tuple[float, ...]
    make: Callable[[float], Tensor]
    blind: tuple[str, ...] = ()


def series(images: Tensor, labels: Tensor, n: int) -> list[Series]:
    """Return the faults that the self-test goes through.

    Args:
        images: [m, 3, 32, 32] uint8, real images that the metrics' reference does not have; the
            faults are put on the first n, the dropped classes taken from all of them.
        labels: [m] class of each, 0..9.
        n: images in a set.
    """
    random = torch.Generator().manual_seed(0)
    clean = images[:n]
    return [
        Series("noise", (5, 20, 80), lambda s: noisy(clean, s, random)),
        Series("blur", (0.6, 1.2, 2.0), lambda s: blurred(clean, s)),
        Series("classes missing", (1, 5, 9), lambda s: of_classes(images, labels, 10 - int(s), n)),
        Series(
            "copies of each image",
            (2, 10, 100),
            lambda s: repeated(clean, max(n // int(s), 1)),
            blind=("cs_",),
        ),
    ]
