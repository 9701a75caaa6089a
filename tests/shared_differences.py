"""What ranks do in the tests of ranks that differ."""

import copy
import itertools
from pathlib import Path
from typing import Any

import torch
from games import QuadraticGame
from odd_rank import ODD, Run, attempt, is_odd
from torch import Tensor
from torch import distributed as dist

from compopt import GMRES, ConjugateGradient, Game
from compopt.derivatives import Derivatives, differentiate
from compopt.distributed import (
    Placement,
    Replicated,
    Sharded,
    broadcast_parameters,
)
from compopt.optim.rivals import SimultaneousDescentAscent


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
        for change in PARAMETERS if name == "replicated" else [one_ulp]:
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
    scaled = Run.of()
    loss, scaler = scaled.loss(), torch.amp.GradScaler("cpu", init_scale=8.0)
    results["scale"] = attempt(
        lambda: scaled.optimizer.backward(loss, scaler=None if is_odd() else scaler)
    )
    alone = Run.of()
    loss, moves = alone.loss(), "min" if is_odd() else "max"
    results["players"] = attempt(lambda: alone.optimizer.step(loss, player=moves))
    together = Run.of()
    loss, moves = together.loss(), None if is_odd() else "max"
    results["one and both"] = attempt(lambda: together.optimizer.step(loss, player=moves))
    wrapped, rules = QuadraticGame(), (torch.optim.SGD, torch.optim.Adam)
    rivals = SimultaneousDescentAscent(
        wrapped.min_params,
        wrapped.max_params,
        optimizer=rules[is_odd()],
        process_group=dist.group.WORLD,
    )
    results["players' optimizers"] = attempt(lambda: rivals.step(wrapped.loss()))
    # A penalty of one rank counts in the mean.
    shards = Run.of(Sharded(dist.group.WORLD))
    penalty = None if is_odd() else shards.game.smoothness(0)
    shards.optimizer.step(shards.loss(), min_penalty=penalty)
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


def field_products(field: Derivatives) -> dict[str, list[Tensor]]:
    """Return everything that a field of gradients gives, by method."""
    random = torch.Generator().manual_seed(3)
    vectors = {
        player: torch.randn(layout.numel, generator=random, dtype=torch.float64)
        for player, layout in field.layouts.items()
    }
    results = {
        name: [*getattr(field, name)(vectors).values()]
        for name in ("interaction", "jacobian", "transposed", "antisymmetric_transposed")
    }
    pairs = list(itertools.product(field.layouts, repeat=2))
    results["grads"] = [*field.grads.values()]
    results["cross_gradient"] = [field.cross_gradient(*pair) for pair in pairs]
    results["product"] = [field.product(*pair, vectors) for pair in pairs]
    results["mixed_product"] = [field.mixed_product("min", vectors["max"])]
    sums = {p: torch.empty_like(vector) for p, vector in vectors.items()}
    for objective, rows in pairs:
        field.add_product(objective, rows, vectors, vectors[rows], sums[rows])
    results["add_product"] = [*sums.values()]
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
        ways.append(field_products(differentiate(game, params, placement=placement)))
    shared, alone = ways
    return {name: (shared[name], alone[name]) for name in alone}


DIFFERENCES = [
    differing_parameters,
    differing_hyperparameters,
    differing_settings,
    differing_state,
    moments_of_shards,
    state_made_by_one_rank,
    second_optimizer,
    freezing,
    field_of_means,
]
