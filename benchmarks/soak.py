"""A long run of a small GAN that checks memory growth and every step's status.

``python -m benchmarks.soak`` takes 20,000 steps and writes ``benchmarks/results/soak.json``.
"""

import collections
import gc
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import RESULTS, arguments, write_result
from compopt import ACGD

RESULT = RESULTS / "soak.json"


def resident_mb() -> float:
    """Return the resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def num_tensors() -> int:
    """Return the number of live tensors created since ``gc.freeze``."""
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def soak(num_steps: int, every: int) -> dict[str, Any]:
    """Train on the ring of Gaussians; record memory and tensors at every ``every``-th step.

    Returns:
        The records, the counts of statuses and of iterations, and the seconds.
    """
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    generator.append(nn.Linear(64, 2))
    critic = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    critic.append(nn.Linear(64, 1))
    optimizer = ACGD(generator.parameters(), critic.parameters(), lr=1e-3, warm_start=True)
    statuses: collections.Counter[str] = collections.Counter()
    iterations: collections.Counter[int] = collections.Counter()
    looks, num_taken = [], 0
    start = time.perf_counter()
    gc.collect()
    # Exclude existing objects from later scans, which would take seconds.
    gc.freeze()
    for step in range(num_steps):
        angle = torch.randint(8, (64,)) * torch.pi / 4
        real = 2 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * torch.randn(64, 2)
        loss = critic(real).mean() - critic(generator(torch.randn(64, 16))).mean()
        loss = optimizer.step(loss)
        report = optimizer.last_step
        statuses[report.status.name] += 1
        iterations[report.num_iter] += 1
        num_taken += report.taken
        if (step + 1) % every == 0:
            gc.collect()
            look = {"step": step + 1, "resident_mb": resident_mb(), "tensors": num_tensors()}
            looks.append({**look, "loss": float(loss)})
    gc.unfreeze()
    return {
        "steps": num_steps,
        "taken": num_taken,
        "seconds": time.perf_counter() - start,
        "statuses": dict(statuses),
        "iterations": {str(key): iterations[key] for key in sorted(iterations)},
        "looks": looks,
        "drift": drift(optimizer),
    }


def drift(optimizer: ACGD) -> float:
    """Return the distance of the optimizer's own vectors from its state; 0 if they agree."""
    largest = 0.0
    for player in ("min", "max"):
        kept = optimizer._vectors_of(player).read("exp_avg_sq")
        params = optimizer._params(player)
        stored = torch.cat([optimizer.state[param]["exp_avg_sq"].flatten() for param in params])
        assert kept is not None
        largest = max(largest, float((kept - stored).abs().max()))
    return largest


def main() -> None:
    """Run, and write the result."""
    parser = arguments(__doc__, out=RESULT)
    parser.add_argument("--steps", type=int, default=20_000)
    args = parser.parse_args()
    result = soak(args.steps, max(args.steps // 20, 1))
    write_result(args.out, result)
    print(json.dumps({key: result[key] for key in ("statuses", "iterations", "drift")}))
    print(f"{result['looks'][0]} ... {result['looks'][-1]}")


if __name__ == "__main__":
    main()
