"""Quality of generated CIFAR-10 images, measured offline and under names of its own."""

from benchmarks.metrics.evaluate import evaluate
from benchmarks.metrics.extractors import EXTRACTORS, to_uint8
from benchmarks.metrics.formulas import METRICS, OFFLINE, SECOND_OPINION
from benchmarks.metrics.reference import Reference

__all__ = [
    "EXTRACTORS",
    "METRICS",
    "OFFLINE",
    "SECOND_OPINION",
    "Reference",
    "evaluate",
    "to_uint8",
]
