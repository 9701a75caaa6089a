"""A model, not a measurement, of a step's time when GPUs are added and each keeps its batch.

``python -m benchmarks.weak_scaling`` writes ``benchmarks/results/weak_scaling.json`` and a plot.
Floating-point operations of a step are counted (on the meta device), bytes and collectives are
those that :class:`compopt.distributed.Replicated` documents and its tests count. The rest is stated
in :data:`HARDWARE`, with sources, and in :class:`Hardware`'s assumptions.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cifar10.dcgan import Critic, Generator
from benchmarks.networks import num_parameters
from compopt import ACGD, ConjugateGradient

FOLDER = Path(__file__).parent / "results"
NUM_GPUS = tuple(2**k for k in range(11))
NUM_ITER = 2
BATCH = 64


@dataclass(frozen=True)
class Hardware:
    """What the model takes for given.

    Attributes:
        peak_flops: of a GPU per second, in TF32 on tensor cores, dense.
        utilization: assumed share of it that convolutions reach.
        memory_bandwidth: of a GPU, bytes per second.
        node_size: GPUs joined by NVLink.
        nvlink: bytes per second and direction of a GPU.
        infiniband: bytes per second and direction of a GPU's adapter.
        nvlink_latency: assumed seconds of a hop.
        infiniband_latency: assumed seconds of a hop.
        straggling: assumed standard deviation of the logarithm of a backward pass's time.
    """

    peak_flops: float = 494.7e12
    utilization: float = 0.3
    memory_bandwidth: float = 3.35e12
    node_size: int = 8
    nvlink: float = 450e9
    infiniband: float = 50e9
    nvlink_latency: float = 3e-6
    infiniband_latency: float = 8e-6
    straggling: float = 0.05


HARDWARE = Hardware()
SOURCES = {
    "peak_flops, memory_bandwidth, nvlink": (
        "NVIDIA H100 SXM data sheet (TF32 989 TFLOPS with sparsity, half of it dense; 3.35 TB/s; "
        "NVLink 900 GB/s, both directions together). "
        "https://www.nvidia.com/en-us/data-center/h100/"
    ),
    "infiniband": (
        "One ConnectX-7 adapter of 400 Gb/s per GPU: NVIDIA DGX H100 User Guide. "
        "https://docs.nvidia.com/dgx/dgxh100-user-guide/"
    ),
    "time of a ring": (
        "2 (n - 1) / n of the bytes over the bus: NCCL tests, doc/PERFORMANCE.md. "
        "https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md"
    ),
}


@dataclass(frozen=True)
class Workload:
    """What a step computes and sends.

    Attributes:
        name: for the plot.
        num_min: parameters of the generator.
        num_max: parameters of the critic.
        flops: of one step on one GPU, counted.
        num_products: mixed products of a step.
    """

    name: str
    num_min: int
    num_max: int
    flops: int
    num_products: int

    def messages(self) -> list[int]:
        """Return the bytes of each all-reduce of a step, in float32."""
        n, m, half = self.num_min, self.num_max, self.num_products // 2
        return [4 * (n + m + 1), *[4 * n] * half, *[4 * m] * (self.num_products - half)]


def count(name: str, width: float) -> Workload:
    """Count a step of the DCGAN of a width with a fixed number of iterations."""
    with torch.device("meta"):
        generator, critic = Generator(width=width), Critic(width=width)
        real, noise = torch.empty(BATCH, 3, 32, 32), torch.empty(BATCH, 128)
        optimizer = ACGD(
            generator.parameters(),
            critic.parameters(),
            solver=ConjugateGradient(rtol=0.0, max_iter=NUM_ITER),
            capturable=True,
        )
        with FlopCounterMode(display=False) as counter:
            optimizer.step(critic(real).mean() - critic(generator(noise)).mean())
    report = optimizer.last_step
    assert report is not None
    sizes = num_parameters(generator), num_parameters(critic)
    return Workload(name, *sizes, counter.get_total_flops(), report.num_hvp)


def all_reduce(num_bytes: int, num_gpus: int, hardware: Hardware = HARDWARE) -> float:
    """Return the seconds of an all-reduce: a ring in each node, then rings across nodes."""
    inside = min(num_gpus, hardware.node_size)
    nodes = math.ceil(num_gpus / hardware.node_size)
    seconds = 2 * (inside - 1) / inside * num_bytes / hardware.nvlink
    seconds += 2 * math.ceil(math.log2(inside)) * hardware.nvlink_latency
    if nodes > 1:
        # Each GPU of a node exchanges its share of what the node has summed.
        seconds += 2 * (nodes - 1) / nodes * num_bytes / inside / hardware.infiniband
        seconds += 2 * math.ceil(math.log2(nodes)) * hardware.infiniband_latency
    return seconds


def step_time(
    work: Workload,
    num_gpus: int,
    *,
    overlap: bool,
    hardware: Hardware = HARDWARE,
    slowdown: float = 1.0,
) -> float:
    """Return the seconds of a step.

    Args:
        work: of each GPU, which stays the same.
        num_gpus: how many.
        overlap: whether all buckets of a message but the last one (25 MiB) travel while the
            backward pass goes on.
        hardware: what is assumed.
        slowdown: of the slowest GPU in each backward pass.
    """
    messages = work.messages()
    compute = work.flops / (hardware.peak_flops * hardware.utilization)
    per_pass = compute * slowdown / len(messages)
    seconds = 0.0
    for num_bytes in messages:
        # Twelve passes over a vector in the solver and the update, for each product.
        vectors = 12 * num_bytes / hardware.memory_bandwidth
        sent = all_reduce(num_bytes, num_gpus, hardware) if num_gpus > 1 else 0.0
        last = min(num_bytes, 25 * 2**20) / num_bytes
        hidden = min(sent * (1 - last), per_pass) if overlap else 0.0
        seconds += per_pass + vectors + sent - hidden
    if num_gpus > 1:
        seconds += (NUM_ITER + 1) * hardware.infiniband_latency * math.log2(num_gpus)
    return seconds


def straggler_slowdown(
    num_gpus: int, hardware: Hardware = HARDWARE, draws: int = 400, seed: int = 0
) -> float:
    """Return by how much the slowest of many GPUs is slower than the mean, by simulation."""
    if num_gpus == 1:
        return 1.0
    random = np.random.default_rng(seed)
    times = np.exp(random.normal(0.0, hardware.straggling, size=(draws, num_gpus)))
    return float(times.max(axis=1).mean() / math.exp(hardware.straggling**2 / 2))


def model(workloads: list[Workload]) -> dict[str, Any]:
    """Return all curves."""
    curves = {}
    for work in workloads:
        curves[work.name] = {
            "parameters": [work.num_min, work.num_max],
            "gflops": work.flops / 1e9,
            "bytes": sum(work.messages()),
            "overlapped": [step_time(work, n, overlap=True) for n in NUM_GPUS],
            "not_overlapped": [step_time(work, n, overlap=False) for n in NUM_GPUS],
            "with_stragglers": [
                step_time(work, n, overlap=True, slowdown=straggler_slowdown(n)) for n in NUM_GPUS
            ],
        }
    return {
        "kind": "a model, not a measurement",
        "num_gpus": NUM_GPUS,
        "batch_per_gpu": BATCH,
        "iterations": NUM_ITER,
        "hardware": asdict(HARDWARE),
        "sources": SOURCES,
        "curves": curves,
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot the time of a step against the number of GPUs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    styles = {"overlapped": "-", "not_overlapped": "--", "with_stragglers": ":"}
    figure, panels = plt.subplots(1, len(result["curves"]), figsize=(10, 4), layout="constrained")
    for panel, (name, curves) in zip(panels, result["curves"].items(), strict=True):
        for key, style in styles.items():
            times = [1e3 * seconds for seconds in curves[key]]
            panel.plot(result["num_gpus"], times, style, marker=".", label=key.replace("_", " "))
        panel.set_xscale("log", base=2)
        panel.set_ylim(bottom=0)
        panel.set_title(name)
        panel.set_xlabel("GPUs, 64 samples each (8 per node)")
        panel.set_ylabel("step, ms")
        panel.axvline(8, color="0.8", zorder=0)
    panels[0].legend(frameon=False)
    figure.suptitle("Weak scaling of an ACGD step: a model from data sheets, not a measurement")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Write the result and the plot."""
    result = model([count("DCGAN, 1.9 M parameters", 1.0), count("DCGAN, 100 M parameters", 8.5)])
    (FOLDER / "weak_scaling.json").write_text(json.dumps(result, indent=1) + "\n")
    draw(result, FOLDER / "weak_scaling.png")
    for name, curves in result["curves"].items():
        first, last = curves["overlapped"][0], curves["overlapped"][-1]
        print(f"{name}: {1e3 * first:.2f} ms on 1 GPU, {1e3 * last:.2f} ms on 1024")


if __name__ == "__main__":
    main()
