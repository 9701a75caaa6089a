"""What turns images into features, by name."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.metrics import cifar10net, effnetlite


class Features(NamedTuple):
    """Features [n, d] float32 and, of a classifier, probabilities [n, k], both on the CPU."""

    values: Tensor
    probabilities: Tensor | None


@dataclass(frozen=True)
class Extractor:
    """A fixed network, or none, that features are taken from.

    Attributes:
        name: with the version, as it appears in the names of metrics.
        sha256: of the weights; empty where there are none.
        preparation: how images are prepared and which layer is read, in words.
        load: returns the network; imports and reads only when called.
        apply: features and probabilities of a batch of uint8 images.
    """

    name: str
    sha256: str
    preparation: str
    load: Callable[[], nn.Module]
    apply: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]


def _apply_cifar10net(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
    features = net.features(cifar10net.normalised(images))
    return features, net.fc(features).softmax(1)


EXTRACTORS = {
    extractor.name: extractor
    for extractor in (
        Extractor(
            "pixels8",
            "",
            "mean over 4x4 blocks of pixels, 192 values",
            nn.Identity,
            lambda _, images: (functional.avg_pool2d(images.float(), 4).flatten(1), None),
        ),
        Extractor(
            "cifar10net_v1",
            cifar10net.SHA256,
            "no resize, global average pool, 128 values",
            cifar10net.load_cifar10net,
            _apply_cifar10net,
        ),
        Extractor(
            "effnetlite0_r96_p320",
            effnetlite.SHA256,
            "bicubic to 96x96, global average pool of the last linear bottleneck, 320 values",
            effnetlite.load_effnetlite,
            lambda net, images: (net(images), None),
        ),
    )
}


@torch.no_grad()
def extract(
    extractor: Extractor,
    images: Tensor,
    *,
    batch_size: int = 500,
    device: torch.device | str = "cpu",
    progress: Callable[[Iterable[Tensor]], Iterable[Tensor]] = iter,
) -> Features:
    """Return the features of images.

    Args:
        extractor: one of `EXTRACTORS`.
        images: [n, 3, 32, 32] uint8.
        batch_size: images at a time.
        device: where the network runs.
        progress: wraps the batches, such as ``rich.progress.track``.
    """
    net = extractor.load().to(device)
    parts = []
    for batch in progress(images.split(batch_size)):
        values, probabilities = extractor.apply(net, batch.to(device))
        parts.append((values.float().cpu(), probabilities))
    rows = [part for _, part in parts if part is not None]
    return Features(torch.cat([part for part, _ in parts]), torch.cat(rows).cpu() if rows else None)


def check_images(images: Tensor, name: str = "images") -> Tensor:
    """Return ``images`` if they are [n, 3, 32, 32] uint8.

    Raises:
        TypeError: if they are of another dtype: all figures are of 8-bit images.
        ValueError: if they have another shape.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"`{name}` must be a uint8 tensor, got {kind}. Use `to_uint8`.")
    if images.ndim != 4 or images.shape[1:] != (3, 32, 32) or not len(images):
        raise ValueError(f"`{name}` must be [n, 3, 32, 32], got {tuple(images.shape)}.")
    return images


def to_uint8(images: Tensor) -> Tensor:
    """Return 8-bit images for images in [-1, 1], as a generator makes them, rounded and clamped.

    Raises:
        ValueError: if a value is NaN or infinite: a diverged generator has no images.
    """
    if not images.isfinite().all():
        raise ValueError("`images` must be finite; the generator has diverged.")
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
