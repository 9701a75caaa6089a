"""Count how often preflight reports correct derivatives of the benchmarks' networks as wrong.

``python -m benchmarks.false_alarms --seeds 50`` draws initial weights and a batch for each seed and
writes ``benchmarks/results/false_alarms.json``. Each entry is stored when it is measured, so an
interrupted run resumes from there. ``--new`` starts from scratch.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cifar10 import resnet
from benchmarks.harness import arguments, markdown_table, read_result, write_result
from benchmarks.networks import SmallCritic, SmallGenerator
from benchmarks.workloads import DCGAN, LATENT_SIZE, POISSON, Play, Workload, gan
from compopt import PreflightError, preflight

RESULT = Path(__file__).parent / "results" / "false_alarms.json"
SAMPLE_SIZE = 2


def rectified_mlp(batch_size: int, width: int = 128, latent_size: int = 16) -> Play:
    """Return a Wasserstein game of networks with three ReLU layers on points of the plane."""

    def network(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(inputs, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.LeakyReLU(0.2),
            nn.Linear(width, outputs),
        )

    generator, critic = network(latent_size, SAMPLE_SIZE), network(SAMPLE_SIZE, 1)

    def draw(random: torch.Generator) -> tuple[Tensor, ...]:
        points = torch.randn(batch_size, SAMPLE_SIZE, generator=random)
        return points, torch.randn(batch_size, latent_size, generator=random)

    def loss(batch: tuple[Tensor, ...]) -> Tensor:
        return critic(batch[0]).mean() - critic(generator(batch[1])).mean()

    return Play(generator, critic, draw, loss)


# Narrow networks have as many kinks per weight, and take seconds instead of minutes.
NARROW_SMALL = Workload(
    "small CNN, width 1/4",
    lambda n: gan(SmallGenerator(LATENT_SIZE, width=0.25), SmallCritic(width=0.25), n),
)
NARROW_RESNET = Workload(
    "residual networks, width 1/8",
    lambda n: gan(resnet.Generator(LATENT_SIZE, width=0.125), resnet.Critic(width=0.125), n),
)
NETWORKS: dict[str, tuple[Workload, int]] = {
    "mlp": (Workload("MLP with ReLU", rectified_mlp), 256),
    "poisson": (POISSON, 256),
    "dcgan": (DCGAN, 8),
    "small": (NARROW_SMALL, 8),
    "resnet": (NARROW_RESNET, 8),
}
"""By name, with the batch size that is tried."""


def trial(workload: Workload, batch_size: int, seed: int) -> dict[str, Any]:
    """Return preflight's result for a game whose derivatives are torch's own."""
    torch.manual_seed(seed)
    play = workload.build(batch_size)
    batch = play.draw(torch.Generator().manual_seed(seed))
    try:
        report = preflight(lambda: play.loss(batch), play.min_player, play.max_player)
    except PreflightError as error:
        return {"alarm": str(error)}
    return {
        "errors": {kind: float(f"{error:.1e}") for kind, error in report.errors.items()},
        "unmeasured": report.unmeasured,
    }


def table(trials: dict[str, list[dict[str, Any]]]) -> str:
    """Return the counts and the largest errors as a Markdown table."""
    rows = []
    for name, found in trials.items():
        workload, batch_size = NETWORKS[name]
        passed = [trial for trial in found if "alarm" not in trial]
        worst = (
            max((trial["errors"].get(kind, 0.0) for trial in passed), default=0.0)
            for kind in ("gradient", "product", "order")
        )
        undecided = sum(trial["unmeasured"] is not None for trial in passed)
        counts = batch_size, len(found), len(found) - len(passed), undecided
        rows.append([workload.name, *counts, *(f"{error:.0e}" for error in worst)])
    heads = ["networks", "batch", "seeds", "false alarms", "undecided"]
    return markdown_table([*heads, "largest error of gradients", "of products", "of orders"], rows)


def main() -> None:
    """Measure the missing entries, write the results and print the table."""
    parser = arguments(__doc__, out=RESULT)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--new", action="store_true")
    options = parser.parse_args()
    stored = {} if options.new else read_result(options.out, {})
    trials: dict[str, list[dict[str, Any]]] = stored.get("trials", {})
    for seed in range(options.seeds):
        for name in options.networks:
            found = trials.setdefault(name, [])
            if len(found) <= seed:
                found.append(trial(*NETWORKS[name], seed))
                write_result(options.out, {"trials": trials}, indent=None)
    print(table(trials))


if __name__ == "__main__":
    main()
