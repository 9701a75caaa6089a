"""Critics of images: parallel filters, and spectra while samples become one."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cifar10.config import NetworkConfig, RunConfig
from benchmarks.cifar10.optimizers import OptimizerConfig
from benchmarks.cifar10.terms import TermConfig
from benchmarks.cifar10.training import Training
from compopt.penalties import Layers
from compopt.penalties.diversity import cosines
from compopt.penalties.layers import effective_weight, filter_rows

LOOKS = 20


def start(images: Tensor, loss: str, term: str, seed: int, kind: str) -> Training:
    """Return the training of a DCGAN of an eighth of the width by alternating Adam."""
    config = RunConfig(
        network=NetworkConfig("dcgan", 0.125),
        optimizer=OptimizerConfig(kind=kind, lr=8e-4),
        loss=loss,
        term=TermConfig(term),
        batch_size=32,
        seed=seed,
    )
    return Training(config, images)


def parallel_pairs(network: nn.Module, threshold: float = 0.5) -> int:
    """Return how many pairs of filters in a layer have a cosine above the threshold."""
    count = 0
    for _, layer in Layers(image_channels=3).of(network).items():
        found = cosines(filter_rows(layer, effective_weight(layer)))
        count += int((found.triu(1) > threshold).sum())
    return count


def filters(images: Tensor, loss: str, term: str, seed: int, steps: int = 500) -> dict[str, Any]:
    """Return the parallel pairs of both networks after some steps."""
    training = start(images, loss, term, seed, "adam-simultaneous")
    for _ in range(steps):
        training.advance()
    networks = {"critic": training.critic, "generator": training.generator}
    return {name: parallel_pairs(network) for name, network in networks.items()}


@torch.no_grad()
def variety(training: Training) -> float:
    """Return the standard deviation of a pixel over samples, in that of real images."""
    draw = training.batches.draw(0)
    noise = torch.randn(64, draw.noise.shape[1], generator=torch.Generator().manual_seed(0))
    # Statistics of the batch, as in training.
    samples = training.generator(noise)
    return float(samples.std(dim=0).mean() / draw.real.std(dim=0).mean())


def spectra(images: Tensor, term: str, seed: int, steps: int = 400) -> dict[str, Any]:
    """Return the lowest level of the critic's spectra and the variety of samples by step."""
    training = start(images, "wgan", term, seed, "adam-simultaneous")
    monitor = training.monitor
    found: dict[str, list[float]] = {"step": [], "level": [], "variety": []}
    for step in range(steps + 1):
        if step % (steps // LOOKS) == 0:
            training.spectra()
            level = min(monitor.levels(name)[-1] for name in monitor.history)
            found["step"].append(step)
            found["level"].append(round(level, 3))
            found["variety"].append(round(variety(training), 3))
        if step < steps:
            training.advance()
    return {**found, "alarms": len(monitor.alarms)}
