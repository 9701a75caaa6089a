"""Cost of training each cell, in steps of plain Adam, measured once and stored."""

import dataclasses
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.cifar10.config import CostConfig, RunConfig
from benchmarks.cifar10.errors import BenchmarkError
from benchmarks.cifar10.optimizers import OptimizerConfig
from benchmarks.cifar10.training import Training
from benchmarks.harness import in_turns, processor_seconds, write_result

FILE = Path(__file__).parent / "protocols" / "costs.json"
PERIOD = 16
"""Steps timed together: terms that come only at some steps come equally often in each part."""


def cost_key(config: RunConfig) -> str:
    """Return a line of text with all settings that determine the cost of a cell."""
    network, optimizer = config.network, config.optimizer
    parts = [f"{network.kind} x{network.width:g}", f"batch {config.batch_size}", optimizer.kind]
    if optimizer.is_competitive:
        parts.append("without interaction" if optimizer.interaction == 0 else "")
        parts.append(
            f"share {optimizer.curvature_share:g}" if optimizer.curvature_share < 1 else ""
        )
    if optimizer.critic_steps > 1:
        parts.append(f"{optimizer.critic_steps} critic steps")
    every = config.term.options.get("every")
    term = f"{config.term.kind} every {every}" if every else config.term.kind
    return ", ".join(part for part in (*parts, config.loss, term) if part)


def stored_costs(file: Path = FILE) -> dict[str, CostConfig]:
    """Return the measured costs, by key."""
    if not file.exists():
        return {}
    table = json.loads(file.read_text())["costs"]
    return {key: CostConfig(**row) for key, row in table.items()}


def with_cost(config: RunConfig) -> RunConfig:
    """Return the run with its stored cost.

    Raises:
        BenchmarkError: if its cost has not been measured.
    """
    key, costs = cost_key(config), stored_costs()
    if key not in costs:
        raise BenchmarkError(
            f"The cost of {key!r} has not been measured. Run `python -m benchmarks.cifar10 costs "
            "PROTOCOL` on a quiet machine."
        )
    return dataclasses.replace(config, cost=costs[key])


def _unit(config: RunConfig) -> RunConfig:
    """Return the run whose step is the unit of cost: alternating Adam on the same networks."""
    plain = RunConfig(network=config.network, batch_size=config.batch_size, threads=config.threads)
    plain.optimizer = OptimizerConfig(kind="adam-alternating")
    return plain


def _variants(config: RunConfig) -> list[RunConfig]:
    """Return runs with known numbers of products; their times give those of step and product."""
    optimizer = config.optimizer
    if not optimizer.is_competitive or optimizer.interaction == 0:
        return [config]
    return [
        dataclasses.replace(
            config, optimizer=dataclasses.replace(optimizer, rtol=0.0, max_iter=max_iter)
        )
        for max_iter in (1, 3)
    ]


def measure(cells: Iterable[RunConfig], rounds: int) -> dict[str, CostConfig]:
    """Time the steps of cells of all kinds in turn.

    Args:
        cells: cells to measure; networks and batch sizes may differ.
        rounds: number of rounds of `PERIOD` steps of each, for the medians.
    """
    torch.set_num_threads(1)
    by_key = {cost_key(cell): cell for cell in cells}
    runs = {(key, index): v for key, c in by_key.items() for index, v in enumerate(_variants(c))}
    units = {key: cost_key(_unit(cell)) for key, cell in by_key.items()}
    runs |= {(units[key], 0): _unit(cell) for key, cell in by_key.items()}
    trainings = {name: Training(config, _noise(config)) for name, config in runs.items()}
    works = {name: partial(_advance, training) for name, training in trainings.items()}
    found = in_turns(works, rounds, seconds=processor_seconds, warm_up=1, what="rounds")
    times = {name: median(values) / PERIOD for name, values in found.items()}
    products = {n: t.totals.mixed_products / t.step for n, t in trainings.items()}
    costs = {}
    for key in by_key:
        unit = times[units[key], 0]
        product = 0.0
        if (key, 1) in times:
            more = products[key, 1] - products[key, 0]
            product = max(0.0, (times[key, 1] - times[key, 0]) / more)
        step = times[key, 0] - products[key, 0] * product
        costs[key] = CostConfig(step=round(step / unit, 3), product=round(product / unit, 3))
    return costs


def _advance(training: Training) -> None:
    for _ in range(PERIOD):
        training.advance()


def store(costs: dict[str, CostConfig], rounds: int, file: Path = FILE) -> None:
    """Add costs to the file; replace costs with the same keys."""
    merged = {**stored_costs(file), **costs}
    rows = {key: dataclasses.asdict(merged[key]) for key in sorted(merged)}
    unit = "a step of alternating Adam, Wasserstein loss, no term; processor time"
    write_result(file, {"unit": unit, "rounds": rounds, "costs": rows})


def _noise(config: RunConfig) -> Tensor:
    """Return noise images, because the cost of a step does not depend on their content."""
    random = torch.Generator().manual_seed(0)
    shape = (8 * config.batch_size, 3, config.network.image_size, config.network.image_size)
    return torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
