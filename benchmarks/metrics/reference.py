"""The real images that generated ones are judged against, their statistics kept on disk."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.metrics.extractors import EXTRACTORS, Features, check_images, extract
from benchmarks.metrics.formulas import METRICS, PAIRED, RealFeatures, computed
from benchmarks.metrics.frechet import Gaussian, fit_gaussian
from benchmarks.metrics.weights import cache_folder
from compopt._files import replacing

DRAWS = 5
"""Most sets of real images that a floor is averaged over: a single one varies at small n."""

FORMAT = 1
"""Part of each key of the cache: raised when what is stored changes."""


T = TypeVar("T")


def content_hash(images: Tensor) -> str:
    """Return the SHA-256 of images in hexadecimal, of shape and bytes."""
    digest = hashlib.sha256(str(tuple(images.shape)).encode())
    digest.update(images.contiguous().numpy().data)
    return digest.hexdigest()


def _identity(extractor: str) -> tuple[str, str]:
    return EXTRACTORS[extractor].sha256, EXTRACTORS[extractor].preparation


def _parts(features: Features, n: int) -> Iterator[Features]:
    for start in range(0, len(features.values), n):
        rows = slice(start, start + n)
        probabilities = features.probabilities
        yield Features(
            features.values[rows], None if probabilities is None else probabilities[rows]
        )


class Reference:
    """Real images, with the number of generated ones that every method is judged by.

    Distances at different n do not compare, so n belongs to the reference and `evaluate` refuses
    another number of images. What real images score at that n is the floor, and what uniform noise
    scores the ceiling; both are stored beside every result. Statistics of real images are computed
    once for their content and the extractor's weights, bounds also for n, and kept on disk.

    Args:
        images: [N, 3, 32, 32] uint8, the real images.
        n: how many images are judged.
        name: of the split, such as "train"; part of the protocol and of the FID's name.
        held_out: [M, 3, 32, 32] uint8, real images that are not in ``images``, for the floor: the
            mean over up to `DRAWS` disjoint sets of n, or one set of all if there are fewer.
            Without them a part of ``images``, at most half, is held against the others.
        cache: folder of the statistics; by default that of the user's cache.
        batch_size, device: for the extractors.

    Raises:
        TypeError: if the images are not uint8.
        ValueError: if shapes are wrong or n is not in 11..N: ten splits, three neighbors.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        n: int,
        name: str = "train",
        held_out: Tensor | None = None,
        cache: Path | None = None,
        batch_size: int = 500,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images = check_images(images, "images")
        if held_out is not None:
            check_images(held_out, "held_out")
        if not 11 <= n <= len(images):
            raise ValueError(f"`n` must be in 11..{len(images)}, the real images, got {n}.")
        self.n, self.name, self.held_out = n, name, held_out
        self.cache = cache or cache_folder() / "references"
        self.batch_size, self.device = batch_size, device
        self.sha256 = content_hash(images)
        self._real: dict[str, RealFeatures] = {}
        self._bounds: dict[str, dict[str, dict[str, float]]] = {}

    @property
    def _available(self) -> int:
        return len(self.images) // 2 if self.held_out is None else len(self.held_out)

    @property
    def floor_n(self) -> int:
        """How many real images a floor is of: n, unless there are not as many."""
        return min(self.n, self._available)

    @property
    def floor_draws(self) -> int:
        """How many sets of real images the floor is averaged over."""
        return min(DRAWS, self._available // self.floor_n)

    def split(self) -> tuple[Tensor, Tensor]:
        """Return the real images that the floor is of, and those that they are held against."""
        needed = self.floor_n * self.floor_draws
        if self.held_out is not None:
            return self.held_out[:needed], self.images
        order = self._order()
        return self.images[order[:needed]], self.images[order[needed:]]

    def real(self, extractor: str) -> RealFeatures:
        """Return the features of the real images, computed or from the cache."""
        if extractor not in self._real:
            # Not by n: runs judge few images on the way and many at the end.
            stored = self._stored(
                f"real-{extractor}",
                (self.sha256, *_identity(extractor)),
                lambda: self._compute_real(extractor),
            )
            sample = Features(stored["sample"][: self.n], None)
            gaussian = Gaussian(stored["mean"], stored["covariance"])
            self._real[extractor] = RealFeatures(gaussian, sample)
        return self._real[extractor]

    def bounds(self, extractor: str) -> dict[str, dict[str, float]]:
        """Return all metrics of the extractor for real images and for uniform noise.

        Returns:
            "floor" and "floor_std", the mean and deviation over sets of real images; "ceiling".
        """
        if extractor not in self._bounds:
            self._bounds[extractor] = self.kept(
                f"bounds-{extractor}",
                _identity(extractor),
                lambda: self._compute_bounds(extractor),
            )
        return self._bounds[extractor]

    def features(self, extractor: str, images: Tensor) -> Features:
        """Return features of any images, on this reference's device."""
        return extract(
            EXTRACTORS[extractor], images, batch_size=self.batch_size, device=self.device
        )

    def _compute_real(self, extractor: str) -> dict[str, Tensor]:
        values = self.features(extractor, self.images).values
        mean, covariance = fit_gaussian(values)
        return {"mean": mean, "covariance": covariance, "sample": values[self._order()[:PAIRED]]}

    def _compute_bounds(self, extractor: str) -> dict[str, dict[str, float]]:
        names = tuple(name for name in METRICS if METRICS[name].extractor == extractor)
        random = torch.Generator().manual_seed(0)
        noise = torch.randint(0, 256, (self.n, 3, 32, 32), dtype=torch.uint8, generator=random)
        ceiling = computed(names, self.features(extractor, noise), self.real(extractor))
        held_out, rest = self.split()
        real = self.real(extractor)
        if self.held_out is None:
            values = self.features(extractor, rest).values
            real = RealFeatures(fit_gaussian(values), Features(values[:PAIRED], None))
        # Metrics of all pairs need as many real images on either side.
        paired = Features(real.sample.values[: self.floor_n], None)
        against = RealFeatures(real.gaussian, paired)
        made = self.features(extractor, held_out)
        draws = [computed(names, part, against) for part in _parts(made, self.floor_n)]
        stacked = {name: torch.tensor([draw[name] for draw in draws]) for name in draws[0]}
        return {
            "floor": {name: float(values.mean()) for name, values in stacked.items()},
            "floor_std": {
                name: float(values.std(correction=0)) for name, values in stacked.items()
            },
            "ceiling": ceiling,
        }

    def _order(self) -> Tensor:
        return torch.randperm(len(self.images), generator=torch.Generator().manual_seed(0))

    def kept(self, name: str, key: tuple[object, ...], compute: Callable[[], T]) -> T:
        """Return what ``compute`` returns, from the cache if it is there for these images and n.

        Args:
            name: of the file, for readers.
            key: what the result depends on besides the images, the held-out ones and n.
            compute: returns tensors and numbers in dictionaries.
        """
        other = "" if self.held_out is None else content_hash(self.held_out)
        return self._stored(name, (self.sha256, other, self.n, *key), compute)

    def _stored(self, name: str, key: tuple[object, ...], compute: Callable[[], T]) -> T:
        parts = (FORMAT, *key)
        label = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
        path = self.cache / f"{name}-{label}.pt"
        if path.exists():
            stored: T = torch.load(path, weights_only=True)
            return stored
        result = compute()
        self.cache.mkdir(parents=True, exist_ok=True)
        # Several processes may share the cache.
        with replacing(path) as file:
            torch.save(result, file)
        return result
