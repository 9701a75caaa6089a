"""What ranks do in the tests of sharded vectors."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from shared_game import NUM_STEPS, TIGHT, WAYS, SharedGame, Way, part_of
from shared_scenarios import count_steps, group_of, in_group, tensors_of
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

from compopt import ACGD, DirectSolver
from compopt.distributed import Sharded

RUNS = [
    *((2, name) for name, way in WAYS.items() if way.shards),
    *((4, name) for name in ("plain", "warm-alternate", "penalties", "unequal")),
]
STOP = 2


def num_steps(size: int, name: str) -> int:
    if name == "plain":
        return NUM_STEPS
    return 4 if size == 2 else 2


def sharded_ways(folder: Path) -> dict[tuple[int, str], Any]:
    results = {}
    for size, name in RUNS:
        if in_group(size):
            group = group_of(size)
            placement = Sharded(group, bucket_mb=1e-6 if name == "penalties" else 25)
            results[size, name] = WAYS[name].run(placement, part_of(group), num_steps(size, name))
    return results


COUNTED = {
    "cold": WAYS["tight"],
    "penalties": replace(WAYS["penalties"], kwargs={"solver": TIGHT}),
    "warm": Way(kwargs={"solver": TIGHT, "warm_start": True}),
}


def counted_shards(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        name: count_steps(way, Sharded(dist.group.WORLD), 3 if name == "cold" else 1)
        for name, way in COUNTED.items()
    }


class Both(nn.Module):
    def __init__(self, game: SharedGame) -> None:
        super().__init__()
        self.generator, self.critic = game.generator, game.critic


WARM = {"warm_start": True, "solve_for": "alternate"}


def saved(folder: Path) -> dict[str, Any]:
    """Save on four ranks, and go on."""
    group = dist.group.WORLD
    game = SharedGame()
    optimizer = Way(kwargs=WARM).build(game, Sharded(group))
    for step in range(STOP):
        optimizer.step(game.loss(step, part_of(group)))
    both = Both(game)
    state = {
        "networks": both.state_dict(),
        "optimizer": get_optimizer_state_dict(both, optimizer),
    }
    dcp.save(state, checkpoint_id=folder / "sharded")
    full = get_optimizer_state_dict(
        both, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    lengths = {
        key: [value.to_local().numel() for value in entry.values() if value.dim() > 0]
        for key, entry in state["optimizer"]["state"].items()
    }
    # Both hold tensors that steps write to.
    kept = copy.deepcopy(full)
    networks = {name: tensor.clone() for name, tensor in state["networks"].items()}
    for step in range(STOP, STOP + 2):
        optimizer.step(game.loss(step, part_of(group)))
    return {
        "end": [param.detach().clone() for param in game.params()],
        "full": kept,
        "networks": networks,
        "lengths": lengths,
    }


def loaded_on_two(folder: Path) -> list[Tensor] | None:
    """Load on two ranks what four have saved, and go on."""
    # Older torch loads in groups of the first process only.
    group = dist.new_group([0, 1])
    if dist.get_rank() > 1:
        return None
    game = SharedGame()
    with torch.no_grad():
        for param in game.params():
            param.zero_()
    optimizer = Way(kwargs=WARM).build(game, Sharded(group))
    both = Both(game)
    state = {
        "networks": both.state_dict(),
        "optimizer": get_optimizer_state_dict(both, optimizer),
    }
    dcp.load(state, checkpoint_id=folder / "sharded", process_group=group)
    both.load_state_dict(state["networks"])
    set_optimizer_state_dict(both, optimizer, state["optimizer"])
    for step in range(STOP, STOP + 2):
        optimizer.step(game.loss(step, part_of(group)))
    return [param.detach().clone() for param in game.params()]


def shard_states(folder: Path) -> list[Tensor]:
    """Return the parameters after steps, in which ranks have to be alike to the bit."""
    group = dist.group.WORLD
    game = SharedGame()
    optimizer = Way().build(game, Sharded(group))
    for step in range(2):
        optimizer.step(game.loss(step, part_of(group)))
    assert all(tensor.dim() <= 1 for tensor in tensors_of(game, optimizer)[8:])
    return [param.detach().clone() for param in game.params()]


def without_eps(folder: Path) -> bool:
    """Step where padding would have an infinite step size."""
    group = dist.group.WORLD
    game = SharedGame()
    optimizer = Way(kwargs={"eps": 0.0}).build(game, Sharded(group))
    optimizer.step(game.loss(0, part_of(group)))
    return optimizer.last_step.taken


def refusals(folder: Path) -> list[str]:
    group = dist.group.WORLD
    game = SharedGame()
    errors = []
    for attempt in (
        lambda: Way(kwargs={"solver": DirectSolver()}).build(game, Sharded(group)),
        lambda: Way(kwargs={"mirror": "simplex"}).build(game, Sharded(group)),
        lambda: ACGD(
            fully_shard(nn.Linear(2, 2)).parameters(), game.critic.parameters(), process_group=group
        ),
    ):
        try:
            attempt()
        except (TypeError, ValueError) as error:
            errors.append(str(error))
    return errors


SHARDED = [
    sharded_ways,
    counted_shards,
    saved,
    loaded_on_two,
    shard_states,
    without_eps,
    refusals,
]
