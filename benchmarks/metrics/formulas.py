"""The offline metrics by name: which features, and what is computed from them."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.metrics.extractors import Features
from benchmarks.metrics.frechet import Gaussian, fit_gaussian, frechet_distance
from benchmarks.metrics.neighbors import fidelity, repetition
from benchmarks.metrics.scores import classifier_score, kernel_distance


@dataclass(frozen=True)
class RealFeatures:
    """Features of the real images.

    Attributes:
        gaussian: fitted to all real images.
        sample: [m, d] features of as many real images as there are generated ones, at most
            `PAIRED` of them.
    """

    gaussian: Gaussian
    sample: Features


PAIRED = 10_000
"""Most images a side in metrics that compare all pairs."""

Formula = Callable[[Features, RealFeatures], dict[str, float]]


def _frechet(made: Features, real: RealFeatures) -> dict[str, float]:
    return {"fd": frechet_distance(fit_gaussian(made.values), real.gaussian)}


def _classifier(made: Features, real: RealFeatures) -> dict[str, float]:
    assert made.probabilities is not None
    score = classifier_score(made.probabilities)
    return {"cs": score.value, "cs_std": score.spread}


def _kernel(made: Features, real: RealFeatures) -> dict[str, float]:
    estimate = kernel_distance(made.values[: len(real.sample.values)], real.sample.values)
    return {"kd": estimate.value, "kd_stderr": estimate.spread}


def _fidelity(made: Features, real: RealFeatures) -> dict[str, float]:
    return fidelity(made.values[: len(real.sample.values)], real.sample.values)._asdict()


def _repetition(made: Features, real: RealFeatures) -> dict[str, float]:
    share = repetition(made.values[: len(real.sample.values)], real.sample.values)
    return {"repetition": share}


@dataclass(frozen=True)
class Metric:
    """A metric that ``which`` may name.

    Attributes:
        extractor: the name of the features.
        formula: what is computed; its keys get the extractor's name.
        better: "low" or "high".
    """

    extractor: str
    formula: Formula
    better: str


METRICS = {
    "fd_cifar10net_v1": Metric("cifar10net_v1", _frechet, "low"),
    "cs_cifar10net_v1": Metric("cifar10net_v1", _classifier, "high"),
    "kd_cifar10net_v1": Metric("cifar10net_v1", _kernel, "low"),
    "precision_cifar10net_v1": Metric("cifar10net_v1", _fidelity, "high"),
    "recall_cifar10net_v1": Metric("cifar10net_v1", _fidelity, "high"),
    "density_cifar10net_v1": Metric("cifar10net_v1", _fidelity, "high"),
    "coverage_cifar10net_v1": Metric("cifar10net_v1", _fidelity, "high"),
    "repetition_pixels8": Metric("pixels8", _repetition, "low"),
    "fd_effnetlite0_r96_p320": Metric("effnetlite0_r96_p320", _frechet, "low"),
    "kd_effnetlite0_r96_p320": Metric("effnetlite0_r96_p320", _kernel, "low"),
}

OFFLINE = tuple(name for name in METRICS if "effnetlite0" not in name)
"""What is measured by default: needs nothing beyond this package."""

SECOND_OPINION = ("fd_effnetlite0_r96_p320", "kd_effnetlite0_r96_p320")
"""What needs the optional package of weights."""


def computed(names: tuple[str, ...], made: Features, real: RealFeatures) -> dict[str, float]:
    """Return the metrics of one extractor, each formula computed once."""
    extractor = METRICS[names[0]].extractor
    values: dict[str, float] = {}
    for formula in dict.fromkeys(METRICS[name].formula for name in names):
        values |= {f"{key}_{extractor}": value for key, value in formula(made, real).items()}
    return values
