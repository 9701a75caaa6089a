"""FID, KID and IS under their true names: through torch-fidelity, on verified Inception weights."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.metrics.weights import downloaded, verified

if TYPE_CHECKING:
    from benchmarks.metrics.reference import Reference

NAME = "inception"
URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
VARIABLE = "COMPOPT_INCEPTION_WEIGHTS"
PREPARATION = "torch-fidelity: TensorFlow 1 bilinear to 299x299, inception-v3-compat, pool 2048"


class _Images(Dataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def weights_path() -> Path:
    """Return the verified file of weights: ``COMPOPT_INCEPTION_WEIGHTS``, cache or download.

    Raises:
        ValueError: if its SHA-256 is another one. torch-fidelity itself does not look.
        ConnectionError: if it is neither given nor in the cache, and cannot be downloaded.
    """
    given = os.environ.get(VARIABLE)
    return verified(Path(given), SHA256) if given else downloaded(URL, SHA256)


def scores(images: Tensor, reference: "Reference") -> dict[str, float]:
    """Return ``FID-<n>-<split>``, ``KID-<n>-<split>`` and ``IS-<n>``, as FID-50k-train.

    Args:
        images: [n, 3, 32, 32] uint8.
        reference: the real images; all of them are used.

    Raises:
        ImportError: if torch-fidelity >= 0.4 or the torchvision that it needs is missing.
        ConnectionError, ValueError: see `weights_path`.

    Cost: Inception at 299x299 for each image, and once for the real ones; meant for a GPU.
    """
    return _named(_calculated(images, reference.images, reference.sha256, reference), reference)


def floor(reference: "Reference") -> dict[str, float]:
    """Return the same of real images: ``floor_n`` of them, once, kept on disk.

    Raises:
        As `scores`.
    """

    def compute() -> dict[str, float]:
        held_out, others = reference.split()
        label = f"{reference.sha256}-floor" if reference.held_out is None else reference.sha256
        return _named(_calculated(held_out, others, label, reference), reference)

    return reference.kept(f"floor-{NAME}", (SHA256,), compute)


def _calculated(
    images: Tensor, real: Tensor, label: str, reference: "Reference"
) -> dict[str, float]:
    try:
        import torch_fidelity
    except (ImportError, RuntimeError) as error:
        # RuntimeError: a torchvision built for another torch.
        raise ImportError(
            f"FID, KID and IS need torch-fidelity and a torchvision for this torch ({error}): "
            'pip install "compopt[fid]". No other network may stand in for theirs.'
        ) from error
    found: dict[str, float] = torch_fidelity.calculate_metrics(
        input1=_Images(images),
        input2=_Images(real),
        input2_cache_name=f"compopt-{label}",
        cache_root=str(reference.cache / "torch_fidelity"),
        cuda=str(reference.device).startswith("cuda"),
        batch_size=reference.batch_size,
        fid=True,
        kid=True,
        isc=True,
        isc_splits=10,
        kid_subset_size=min(1000, len(images)),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights_path()),
        # Also means no worker processes, which a tensor in memory does not need.
        save_cpu_ram=True,
        verbose=False,
    )
    return found


def _named(found: dict[str, float], reference: "Reference") -> dict[str, float]:
    n, split = reference.n, reference.name
    count = f"{n // 1000}k" if n % 1000 == 0 else str(n)
    return {
        f"FID-{count}-{split}": found["frechet_inception_distance"],
        f"KID-{count}-{split}": found["kernel_inception_distance_mean"],
        f"KID-{count}-{split}_std": found["kernel_inception_distance_std"],
        f"IS-{count}": found["inception_score_mean"],
        f"IS-{count}_std": found["inception_score_std"],
    }
