"""A model (not a measurement) of a step's time as GPUs are added, each with the same batch size.

``python -m benchmarks.weak_scaling`` writes ``benchmarks/results/weak_scaling.json`` and a plot.
Floating-point operations of a step are counted on the meta device. Bytes and collectives are those
that :class:`compopt.distributed.Replicated` documents and its tests count. All other inputs are in
:data:`MACHINES`, with their :data:`SOURCES`, and in the assumptions of :class:`Machine`.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cifar10.dcgan import Critic, Generator
from benchmarks.harness import arguments, picture, write_result
from benchmarks.networks import num_parameters
from compopt import ACGD, ConjugateGradient

FOLDER = Path(__file__).parent / "results"
NUM_GPUS = tuple(2**k for k in range(11))
NUM_ITER = 2
BATCH = 64


@dataclass(frozen=True)
class Machine:
    """Assumptions of the model. Rates from data sheets are in :data:`MACHINES`.

    Attributes:
        peak_flops: operations per second of a GPU, dense TF32 on tensor cores.
        memory_bandwidth: bytes per second of a GPU.
        nvlink: bytes per second and direction of a GPU.
        infiniband: bytes per second and direction of a GPU's adapter.
        node_size: number of GPUs connected by NVLink.
        link_share: share of a link's rate that messages reach, measured.
        launch: seconds of a large message in addition to its hops: a tree in NCCL's protocol
            "Simple", as for the next two.
        nvlink_hop: seconds of a hop within a node.
        infiniband_hop: seconds of a hop between nodes.
        small_launch: as ``launch``, for a few bytes in the protocol "LL", as for the next two.
        small_nvlink_hop: as ``nvlink_hop``.
        small_infiniband_hop: as ``infiniband_hop``.
        utilization: assumed share of the peak that convolutions reach.
        vector_passes: assumed passes over a vector in the solver and the update, per product.
        straggling: assumed standard deviation of the logarithm of a backward pass's time.
    """

    peak_flops: float
    memory_bandwidth: float
    nvlink: float
    infiniband: float
    node_size: int = 8
    link_share: float = 380 / 450
    launch: float = 8.4e-6
    nvlink_hop: float = 4.0e-6
    infiniband_hop: float = 14e-6
    small_launch: float = 6.8e-6
    small_nvlink_hop: float = 0.6e-6
    small_infiniband_hop: float = 5.0e-6
    utilization: float = 0.3
    vector_passes: int = 12
    straggling: float = 0.05


MACHINES = {
    "H100, InfiniBand NDR": Machine(
        peak_flops=494.7e12, memory_bandwidth=3.35e12, nvlink=450e9, infiniband=50e9
    ),
    "A100, InfiniBand HDR": Machine(
        peak_flops=156e12, memory_bandwidth=2.039e12, nvlink=300e9, infiniband=25e9
    ),
}
SOURCES = {
    "peak_flops, memory_bandwidth, nvlink of H100": (
        "NVIDIA H100 SXM data sheet (TF32 989 TFLOPS with sparsity, half of it dense; 3.35 TB/s; "
        "NVLink 900 GB/s, both directions together). "
        "https://www.nvidia.com/en-us/data-center/h100/"
    ),
    "infiniband and node_size of H100": (
        "Eight H100 and eight ConnectX-7 of up to 400 Gb/s in a DGX H100: DGX BasePOD reference "
        "architecture. https://docs.nvidia.com/dgx-basepod/"
        "reference-architecture-infrastructure-foundation-enterprise-ai/latest/core-components.html"
    ),
    "peak_flops, memory_bandwidth, nvlink of A100": (
        "NVIDIA A100 80GB SXM data sheet (TF32 156 TFLOPS; 2,039 GB/s; NVLink 600 GB/s, both "
        "directions together). https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/"
        "pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
    ),
    "infiniband and node_size of A100": (
        "Eight A100 and eight ConnectX-6 of 200 Gb/s for them in a DGX A100. "
        "https://developer.nvidia.com/blog/defining-ai-innovation-with-dgx-a100/"
    ),
    "link_share": (
        "Copies between two H100 at 380 of 450 GB/s, as users measured. "
        "https://github.com/NVIDIA/nccl/issues/1264"
    ),
    "launch, nvlink_hop, infiniband_hop, and those of small messages": (
        "NCCL's own model of its trees: 2 ((n - 1) hops within nodes of n GPUs, the logarithm of "
        "the number of nodes between them). "
        "https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc"
    ),
    "time of a ring": (
        "2 (n - 1) / n of the bytes over the bus: NCCL tests, doc/PERFORMANCE.md. "
        "https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md"
    ),
}


@dataclass(frozen=True)
class Workload:
    """Computation and communication of a step.

    Attributes:
        name: name in the plot.
        num_min: number of the generator's parameters.
        num_max: number of the critic's parameters.
        flops: counted operations of one step on one GPU.
        num_products: number of mixed products of a step.
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
    """Count a step of a DCGAN of the given width with a fixed number of iterations."""
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


def all_reduce(num_bytes: int, num_gpus: int, machine: Machine) -> float:
    """Return the seconds of an all-reduce: within each node, then across nodes."""
    inside, nodes = shape(num_gpus, machine)
    hops = (inside - 1) * machine.nvlink_hop + math.ceil(math.log2(nodes)) * machine.infiniband_hop
    over_nvlink = 2 * (inside - 1) / inside * num_bytes / machine.nvlink
    # Each GPU of a node exchanges its share of the node's sum.
    over_infiniband = 2 * (nodes - 1) / nodes * num_bytes / inside / machine.infiniband
    return machine.launch + 2 * hops + (over_nvlink + over_infiniband) / machine.link_share


def broadcast(num_gpus: int, machine: Machine) -> float:
    """Return the seconds of a broadcast of a few bytes."""
    inside, nodes = shape(num_gpus, machine)
    between = math.ceil(math.log2(nodes)) * machine.small_infiniband_hop
    return machine.small_launch + (inside - 1) * machine.small_nvlink_hop + between


def gather(num_gpus: int, machine: Machine) -> float:
    """Return the seconds of an all-gather of a few bytes around a ring."""
    inside, nodes = shape(num_gpus, machine)
    between = nodes * machine.small_infiniband_hop if nodes > 1 else 0.0
    return machine.small_launch + nodes * (inside - 1) * machine.small_nvlink_hop + between


def shape(num_gpus: int, machine: Machine) -> tuple[int, int]:
    """Return GPUs per node, and nodes."""
    return min(num_gpus, machine.node_size), math.ceil(num_gpus / machine.node_size)


def step_time(
    work: Workload,
    num_gpus: int,
    machine: Machine,
    *,
    overlap: bool,
    slowdown: float = 1.0,
) -> float:
    """Return the seconds of a step.

    Args:
        work: work of each GPU, independent of their number.
        num_gpus: number of GPUs.
        machine: kind of machine.
        overlap: whether all buckets of a message but the last (25 MiB) are sent during the backward
            pass.
        slowdown: slowdown of the slowest GPU in each backward pass.
    """
    messages = work.messages()
    compute = work.flops / (machine.peak_flops * machine.utilization)
    per_pass = compute * slowdown / len(messages)
    seconds = 0.0
    for num_bytes in messages:
        vectors = machine.vector_passes * num_bytes / machine.memory_bandwidth
        sent = all_reduce(num_bytes, num_gpus, machine) if num_gpus > 1 else 0.0
        last = min(num_bytes, 25 * 2**20) / num_bytes
        hidden = min(sent * (1 - last), per_pass) if overlap else 0.0
        seconds += per_pass + vectors + sent - hidden
    if num_gpus > 1:
        # A gather before the step; a broadcast before each iteration and one before the update.
        seconds += gather(num_gpus, machine) + (NUM_ITER + 1) * broadcast(num_gpus, machine)
    return seconds


def straggler_slowdown(num_gpus: int, machine: Machine, draws: int = 400, seed: int = 0) -> float:
    """Return the slowdown of the slowest of many GPUs relative to the mean, by simulation."""
    if num_gpus == 1:
        return 1.0
    random = np.random.default_rng(seed)
    times = np.exp(random.normal(0.0, machine.straggling, size=(draws, num_gpus)))
    return float(times.max(axis=1).mean() / math.exp(machine.straggling**2 / 2))


def model(workloads: list[Workload]) -> dict[str, Any]:
    """Return all curves, by workload and machine."""
    described, curves = {}, {}
    for work in workloads:
        described[work.name] = {
            "parameters": [work.num_min, work.num_max],
            "gflops": work.flops / 1e9,
            "bytes": sum(work.messages()),
        }
        curves[work.name] = {
            name: {
                "overlapped": [step_time(work, n, machine, overlap=True) for n in NUM_GPUS],
                "not_overlapped": [step_time(work, n, machine, overlap=False) for n in NUM_GPUS],
                "with_stragglers": [
                    step_time(
                        work, n, machine, overlap=True, slowdown=straggler_slowdown(n, machine)
                    )
                    for n in NUM_GPUS
                ],
            }
            for name, machine in MACHINES.items()
        }
    return {
        "kind": "a model, not a measurement",
        "num_gpus": NUM_GPUS,
        "batch_per_gpu": BATCH,
        "iterations": NUM_ITER,
        "machines": {name: asdict(machine) for name, machine in MACHINES.items()},
        "sources": SOURCES,
        "workloads": described,
        "curves": curves,
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot the time of a step against the number of GPUs."""
    import matplotlib

    matplotlib.use("Agg")

    styles = {"overlapped": "-", "not_overlapped": "--", "with_stragglers": ":"}
    with picture(path, (10, 4.8), columns=len(result["curves"])) as (figure, axes):
        _draw(result, styles, figure, axes[0])


def _draw(result: dict[str, Any], styles: dict[str, str], figure: Any, panels: Any) -> None:
    for panel, (work, machines) in zip(panels, result["curves"].items(), strict=True):
        for color, (machine, curves) in zip(("C0", "C1"), machines.items(), strict=True):
            for key, style in styles.items():
                times = [1e3 * seconds for seconds in curves[key]]
                label = f"{machine}: {key.replace('_', ' ')}"
                panel.plot(result["num_gpus"], times, style, color=color, marker=".", label=label)
        panel.set_xscale("log", base=2)
        panel.set_ylim(bottom=0)
        panel.set_title(work)
        panel.set_xlabel("GPUs, 64 samples each (8 per node)")
        panel.set_ylabel("step, ms")
        panel.axvline(8, color="0.8", zorder=0)
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
    figure.suptitle("Weak scaling of an ACGD step: a model from data sheets, not a measurement")


def main() -> None:
    """Write the result and the plot."""
    args = arguments(__doc__, out=FOLDER).parse_args()
    result = model([count("DCGAN, 1.9 M parameters", 1.0), count("DCGAN, 100 M parameters", 8.5)])
    write_result(args.out / "weak_scaling.json", {"conditions": {}, **result})
    draw(result, args.out / "weak_scaling.png")
    for work, machines in result["curves"].items():
        for machine, curves in machines.items():
            first, last = curves["overlapped"][0], curves["overlapped"][-1]
            print(f"{work}, {machine}: {1e3 * first:.2f} ms on 1 GPU, {1e3 * last:.2f} on 1024")


if __name__ == "__main__":
    main()
