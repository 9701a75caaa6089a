"""Judge generated images against real ones."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.metrics import inception
from benchmarks.metrics.extractors import EXTRACTORS, check_images
from benchmarks.metrics.formulas import METRICS, OFFLINE, PAIRED, computed
from benchmarks.metrics.neighbors import duplicates
from benchmarks.metrics.reference import Reference


def evaluate(
    images: Tensor, reference: Reference, which: tuple[str, ...] = OFFLINE
) -> dict[str, Any]:
    """Return the metrics of images, with everything that is needed to compare them.

    Args:
        images: [n, 3, 32, 32] uint8 with the n of ``reference``, generated independently.
        reference: the real images.
        which: names of `METRICS`, or "inception" for FID, KID and IS through torch-fidelity.

    Returns:
        "n": the number of images; "metrics": name to value, with "duplicates" always among them;
        "floors", "floor_stds" and "ceilings": the same of real images, mean and deviation over
        disjoint sets, and of uniform noise;
        "weights_sha256": by extractor; "protocol": reference, counts, preparation, versions.

    Raises:
        TypeError: if the images are not uint8.
        ValueError: if their number is not the reference's n, or a name is not known.
        ImportError: if an optional package is needed and missing.

    Cost: on one core about 10 s for 10,000 images and `OFFLINE`, and a minute more for
    EfficientNet-Lite0; the first call for a reference computes its statistics too.
    """
    check_images(images)
    known = {*METRICS, inception.NAME}
    if unknown := sorted(set(which) - known):
        raise ValueError(f"`which` names {unknown}; known are {sorted(known)}.")
    if len(images) != reference.n:
        raise ValueError(
            f"`images` are {len(images)}, must be the reference's n={reference.n}: distances at "
            "different n do not compare."
        )
    metrics: dict[str, float] = {}
    floors: dict[str, float] = {}
    spreads: dict[str, float] = {}
    ceilings: dict[str, float] = {}
    weights: dict[str, str] = {}
    preparation: dict[str, str] = {}
    for extractor in dict.fromkeys(METRICS[name].extractor for name in which if name in METRICS):
        names = tuple(name for name in which if name in METRICS)
        names = tuple(name for name in names if METRICS[name].extractor == extractor)
        made, real = reference.features(extractor, images), reference.real(extractor)
        values, bounds = computed(names, made, real), reference.bounds(extractor)
        metrics |= values
        floors |= {name: bounds["floor"][name] for name in values}
        spreads |= {name: bounds["floor_std"][name] for name in values}
        ceilings |= {name: bounds["ceiling"][name] for name in values}
        weights[extractor] = EXTRACTORS[extractor].sha256 or "none"
        preparation[extractor] = EXTRACTORS[extractor].preparation
    if inception.NAME in which:
        metrics |= inception.scores(images, reference)
        floors |= inception.floor(reference)
        weights[inception.NAME] = inception.SHA256
        preparation[inception.NAME] = inception.PREPARATION
    return {
        "n": len(images),
        "metrics": metrics | {"duplicates": duplicates(images)},
        "floors": floors,
        "floor_stds": spreads,
        "ceilings": ceilings,
        "weights_sha256": weights,
        "protocol": {
            "reference": reference.name,
            "reference_n": len(reference.images),
            "reference_sha256": reference.sha256,
            "floor_n": reference.floor_n,
            "floor_draws": reference.floor_draws,
            "floor_from": "held-out images" if reference.held_out is not None else "a split",
            "paired_n": min(reference.n, PAIRED),
            "images": "uint8, no further compression",
            "preparation": preparation,
            "torch": torch.__version__,
        },
    }
