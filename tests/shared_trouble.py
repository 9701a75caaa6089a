"""What ranks do in the tests of ranks that differ, come too late, or not at all."""

import copy
import datetime
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from shared_game import SharedGame, Way, part_of
from shared_scenarios import tensors_of
from torch import Tensor
from torch import distributed as dist

from compopt import GMRES, ConjugateGradient, Game
from compopt.distributed import (
    CollectiveError,
    Placement,
    Replicated,
    Sharded,
    batch_weight,
    broadcast_parameters,
    while_all_have,
)
from compopt.field import GradientField

ODD = 1
"""The rank that differs."""

SHORT_S = 3.0
"""Time-out of groups in which a rank is missing."""


def is_odd() -> bool:
    return dist.get_rank() == ODD


def short_group() -> dist.ProcessGroup:
    return dist.new_group(timeout=datetime.timedelta(seconds=SHORT_S))


def attempt(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call raises, and how long it takes to."""
    started = time.monotonic()
    error = None
    try:
        call()
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as caught:
        error = caught
    return {
        "kind": type(error).__name__,
        "text": str(error),
        "seconds": time.monotonic() - started,
    }


@dataclass
class Run:
    """A game and its optimizer on this rank."""

    game: SharedGame
    optimizer: Any
    num_steps: int = 0

    @classmethod
    def of(cls, placement: Any = None, **kwargs: Any) -> "Run":
        game = SharedGame()
        placement = dist.group.WORLD if placement is None else placement
        return cls(game, Way(kwargs=kwargs).build(game, placement))

    def loss(self) -> Tensor:
        self.num_steps += 1
        return self.game.loss(self.num_steps - 1, part_of(dist.group.WORLD))

    def step(self) -> None:
        self.optimizer.step(self.loss())

    def tensors(self) -> list[Tensor]:
        return tensors_of(self.game, self.optimizer)

    def set_all(self, key: str, value: Any) -> None:
        for group in self.optimizer.param_groups:
            group[key] = value


# What differs on one rank: how it comes to, and how it is mended.


def swap_entries(weight: Tensor) -> None:
    # Entries of different magnitude, far apart.
    weight[[0, -1], 0] = weight[[-1, 0], 0]


def permute_rows(weight: Tensor) -> None:
    weight.copy_(weight[torch.arange(len(weight)).roll(1)])


def one_ulp(weight: Tensor) -> None:
    weight[0, 0].nextafter_(torch.tensor(9.0))


def one_nan(weight: Tensor) -> None:
    weight[1, 1] = torch.nan


def reversed_pattern(weight: Tensor) -> None:
    """From a, b, b, a to b, a, a, b, which no weighted sum with even steps tells apart."""
    low, high = (1.0, 2.0) if is_odd() else (2.0, 1.0)
    weight[:4, 0] = torch.tensor([low, high, high, low])


PARAMETERS = (swap_entries, permute_rows, one_ulp, one_nan, reversed_pattern)
HYPERPARAMETERS = {
    "lr": 0.03,
    "weight_decay": 0.1,
    "max_grad_norm": 0.5,
    "beta": 0.8,
    "interaction": 0.3,
}
SETTINGS = {
    "max_iter": {"solver": ConjugateGradient(max_iter=7)},
    "rtol": {"solver": ConjugateGradient(rtol=1e-4)},
    "solver": {"solver": GMRES()},
    "on_failure": {"on_failure": "skip"},
    "solve_for": {"solve_for": "max"},
    "tensor lr": {"lr": torch.tensor(0.021)},
}
PLACEMENTS = {"replicated": Replicated, "sharded": Sharded}


def differing_parameters(folder: Path) -> dict[tuple[str, str], Any]:
    results = {}
    for name, placement in PLACEMENTS.items():
        for change in PARAMETERS:
            run = Run.of(placement(dist.group.WORLD))
            if dist.get_rank() == (0 if change is one_nan else ODD) or change is reversed_pattern:
                with torch.no_grad():
                    change(run.game.critic[0].weight)
            before = [param.detach().clone() for param in run.game.params()]
            result = attempt(run.step)
            result["untouched"] = all(
                torch.equal(a.nan_to_num(), b.nan_to_num())
                for a, b in zip(before, run.game.params(), strict=True)
            )
            if change is one_nan:
                with torch.no_grad():
                    run.game.critic[0].weight[1, 1] = 0.1
            broadcast_parameters(run.game.generator, run.game.critic)
            run.step()
            run.step()
            result["end"] = [param.detach().clone() for param in run.game.params()]
            results[name, change.__name__] = result
    return results


def differing_hyperparameters(folder: Path) -> dict[str, Any]:
    """Let values differ from the first step on, and after some steps, as a scheduler does."""
    results = {}
    for key, value in HYPERPARAMETERS.items():
        for is_late in (False, True):
            run = Run.of()
            if is_late:
                run.step()
                run.step()
            if is_odd():
                run.set_all(key, value)
            result = attempt(run.step)
            run.set_all(key, value)
            run.step()
            results[key, is_late] = result | {"end": run.tensors()}
    return results


def differing_settings(folder: Path) -> dict[str, Any]:
    results = {}
    for name, kwargs in SETTINGS.items():
        run = Run.of(**(kwargs if is_odd() else {}))
        results[name] = attempt(run.step)
    buckets = Run.of(Replicated(dist.group.WORLD, bucket_mb=1e-6 if is_odd() else 25))
    results["buckets"] = attempt(buckets.step)
    dtype = Run.of()
    loss = dtype.loss()
    results["dtype"] = attempt(lambda: dtype.optimizer.step(loss.float() if is_odd() else loss))
    pair = Run.of(solver=GMRES())
    loss = pair.loss()
    results["pair"] = attempt(lambda: pair.optimizer.step((loss, -loss) if is_odd() else loss))
    shards = Run.of(Sharded(dist.group.WORLD))
    loss, penalty = shards.loss(), shards.game.smoothness(0)
    results["penalties"] = attempt(
        lambda: shards.optimizer.step(loss, min_penalty=None if is_odd() else penalty)
    )
    shards.optimizer.step(shards.loss(), min_penalty=0 * penalty if is_odd() else penalty)
    return results


def differing_state(folder: Path) -> dict[str, Any]:
    """Load states that differ in one entry, on one rank, or not at all."""
    results = {}
    for what in ("moments", "step", "delta", "one rank only", "alike"):
        run = Run.of(warm_start=True)
        run.step()
        state = copy.deepcopy(run.optimizer.state_dict())
        changed = copy.deepcopy(state)
        if is_odd() and what == "moments":
            changed["state"][2]["exp_avg_sq"][0, 0].nextafter_(torch.tensor(9.0))
        if is_odd() and what == "step":
            for entry in changed["state"].values():
                entry["step"] += 1
        if is_odd() and what == "delta":
            entry = next(e for e in changed["state"].values() if "delta" in e)
            entry["delta"].mul_(-1)
        if is_odd() or what != "one rank only":
            run.optimizer.load_state_dict(changed)
        result = attempt(run.step)
        run.optimizer.load_state_dict(state)
        run.step()
        results[what] = result | {"end": run.tensors()}
    return results


def moments_of_shards(folder: Path) -> list[Tensor]:
    """Load the parts that each rank has of its own."""
    run = Run.of(Sharded(dist.group.WORLD), warm_start=True)
    run.step()
    run.optimizer.load_state_dict(run.optimizer.state_dict())
    run.step()
    return [param.detach().clone() for param in run.game.params()]


def state_made_by_one_rank(folder: Path) -> list[Tensor]:
    """Create the state on the rank that saves, as saving through torch does."""
    run = Run.of()
    if dist.get_rank() == 0:
        run.optimizer.step()
    run.step()
    return run.tensors()


def second_optimizer(folder: Path) -> dict[str, Any]:
    """Compare every optimizer, also where they share a placement."""
    placement = Replicated(dist.group.WORLD)
    Run.of(placement).step()
    second = Run.of(placement)
    if is_odd():
        with torch.no_grad():
            one_ulp(second.game.critic[0].weight)
    return attempt(second.step)


def freezing(folder: Path) -> dict[str, Any]:
    """Freeze on one rank, then on all; at the first step, and later."""
    results = {}
    for is_late in (False, True):
        run = Run.of()
        if is_late:
            run.step()
        frozen = run.game.generator[2].bias
        frozen.requires_grad_(not is_odd())
        result = attempt(run.step)
        frozen.requires_grad_(False)
        run.step()
        frozen.requires_grad_(True)
        run.step()
        results[is_late] = result | {"end": run.tensors()}
    return results


# Ranks that are not at the same call.


def error_before(folder: Path) -> dict[str, Any]:
    """Let a rank go on after an error of its own: a loss that is none, or one that raises."""
    results = {}
    for name in ("loss", "closure"):
        run = Run.of()
        run.step()
        saved = copy.deepcopy(run.optimizer.state_dict())
        own = None
        if is_odd():
            bad = [torch.zeros(3, requires_grad=True), failing_closure][name == "closure"]
            own = attempt(partial(run.optimizer.step, bad))
        result = attempt(run.step)
        again = attempt(run.step)
        run.optimizer.load_state_dict(saved)
        run.step()
        results[name] = {"own": own, "result": result, "again": again, "end": run.tensors()}
    return results


def failing_closure() -> Tensor:
    raise RuntimeError("no memory for this batch")


def skipped_step(folder: Path) -> dict[str, Any]:
    """Skip a step where ranks look for their batches together."""
    run = Run.of()
    taken = 0

    def train() -> None:
        nonlocal taken
        for batch in while_all_have(range(4)):
            if is_odd() and batch == 1:
                continue
            run.step()
            taken += 1

    result = attempt(train)
    return result | {"taken": taken}


def skipped_parts(folder: Path) -> dict[str, Any]:
    """Make different calls on one rank than on the others."""
    results = {}
    two_phase = Run.of()
    two_phase.optimizer.backward(two_phase.loss())
    if is_odd():
        two_phase.optimizer.zero_grad()
    results["prepared step"] = attempt(
        lambda: two_phase.step() if is_odd() else two_phase.optimizer.step()
    )
    mixed = Run.of()
    loss = mixed.loss()
    results["backward"] = attempt(
        lambda: mixed.optimizer.backward(loss) if is_odd() else mixed.optimizer.step(loss)
    )
    weighted = Run.of()
    results["weight"] = attempt(lambda: weighted.step() if is_odd() else batch_weight(3))
    networks = [weighted.game.critic] if is_odd() else [weighted.game.generator]
    results["copies"] = attempt(lambda: broadcast_parameters(*networks))
    results["copy"] = attempt(
        lambda: broadcast_parameters(weighted.game.critic) if is_odd() else weighted.step()
    )
    return results


def error_in_the_middle(folder: Path) -> dict[str, Any]:
    """Let a rank go on after an error in a step that the others are still in."""
    group = short_group()
    run, other = Run.of(group), Run.of(group)
    run.optimizer.solver = FailsOnce()
    first = attempt(run.step)
    # None of these sends anything, or the others would take it for what they wait for.
    started = time.monotonic()
    later = [
        attempt(call)
        for call in (
            run.step,
            other.step,
            lambda: batch_weight(3, process_group=group),
            lambda: next(while_all_have([1], process_group=group)),
            lambda: broadcast_parameters(run.game.critic, process_group=group),
        )
    ]
    seconds = time.monotonic() - started
    run.optimizer.process_group = dist.new_group()
    run.step()
    return {"first": first, "later": later, "seconds": seconds, "end": run.tensors()}


class FailsOnce(ConjugateGradient):
    """Fails on one rank, without any sign of it beforehand."""

    _has_failed = False

    def solve(self, *args: Any, **kwargs: Any) -> Any:
        if is_odd() and not FailsOnce._has_failed:
            FailsOnce._has_failed = True
            raise ArithmeticError("no solution")
        return super().solve(*args, **kwargs)


def missing_step(folder: Path) -> dict[str, Any]:
    """End the loop of one rank earlier than those of the others."""
    group = short_group()
    run = Run.of(group)
    run.step()
    result = attempt(run.step) if not is_odd() else None
    dist.barrier()
    return {"result": result}


def destroyed(folder: Path) -> dict[str, Any]:
    """Step on after the group has gone, and with another one; of a part, and of all processes."""
    group = dist.new_group()
    run = Run.of(group)
    run.step()
    dist.destroy_process_group(group)
    results = {"part": [attempt(run.step) for _ in range(2)]}
    run.optimizer.process_group = dist.group.WORLD
    run.step()
    rank = dist.get_rank()
    dist.destroy_process_group()
    results["all"] = [attempt(run.step) for _ in range(2)]
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/second_store", rank=rank, world_size=3
    )
    run.optimizer.process_group = dist.group.WORLD
    run.step()
    return results | {"end": run.tensors()}


def killed(folder: Path) -> dict[str, Any]:
    """Kill a rank in the middle of a step."""
    run = Run.of(short_group())
    run.step()
    loss = run.loss()
    if is_odd():
        loss.register_hook(lambda _: os.kill(os.getpid(), signal.SIGKILL))
    result = attempt(lambda: run.optimizer.step(loss))
    return result | {"error": result["kind"] == CollectiveError.__name__}


# What general-sum steps are made of.


def field_products(field: GradientField) -> dict[str, list[Tensor]]:
    """Return everything that a field of gradients gives, by method."""
    random = torch.Generator().manual_seed(3)
    vectors = {
        player: torch.randn(field.layout(player).numel, generator=random, dtype=torch.float64)
        for player in field.players
    }
    results = {
        name: [*getattr(field, name)(vectors).values()]
        for name in ("interaction", "jacobian", "transposed", "antisymmetric_transposed")
    }
    pairs = list(itertools.product(field.players, repeat=2))
    results["grads"] = [*field.grads.values()]
    results["cross_gradient"] = [field.cross_gradient(*pair) for pair in pairs]
    results["product"] = [field.product(*pair, vectors) for pair in pairs]
    return results


def field_of_means(folder: Path) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
    """Return what the ranks' field gives, and that of all their samples."""
    ways = []
    for placement in (Replicated(dist.group.WORLD), Placement()):
        run = Run.of()
        # As many samples on each rank.
        part = slice(dist.get_rank() * 5, dist.get_rank() * 5 + 5)
        part = slice(0, 15) if type(placement) is Placement else part
        loss, penalty = run.game.loss(0, part), run.game.smoothness(0, part)
        params = {
            "min": [*run.game.generator.parameters()],
            "max": [*run.game.critic.parameters()],
        }
        game = Game(loss + penalty, max_loss=3 * penalty - loss, max_penalty=0.5 * penalty - loss)
        ways.append(field_products(placement.differentiate(game, params).mixed))
    shared, alone = ways
    return {name: (shared[name], alone[name]) for name in alone}


AT_ONCE = [
    differing_parameters,
    differing_hyperparameters,
    differing_settings,
    differing_state,
    moments_of_shards,
    state_made_by_one_rank,
    second_optimizer,
    freezing,
    error_before,
    skipped_step,
    skipped_parts,
    field_of_means,
]
"""What all ranks find out at once."""

LATE = [error_in_the_middle, missing_step, destroyed, killed]
"""What some find out when the group's time-out has passed; the last one kills a rank."""
