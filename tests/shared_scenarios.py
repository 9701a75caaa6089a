"""What ranks do in the tests of shared steps."""

import copy
import datetime
import pickle
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from shared_game import NUM_STEPS, WAYS, SharedGame, Way, part_of
from step_faults import Fault, infinite_slope
from torch import Tensor, nn
from torch import distributed as dist

from compopt import ConjugateGradient, PolymatrixCGD, StepError
from compopt.distributed import (
    CollectiveError,
    Placement,
    Replicated,
    UnsharedWarning,
    broadcast_parameters,
    unwrap,
    while_all_have,
)
from compopt.optim.rivals import ExtraAdam

SOME = (2, 3)
"""A group that the first process is not in: its ranks are not those of the world."""


@cache
def group_of(size: int) -> dist.ProcessGroup:
    return dist.new_group(list(SOME)) if size == len(SOME) else dist.group.WORLD


def in_group(size: int) -> bool:
    group_of(size)
    return size != len(SOME) or dist.get_rank() in SOME


def num_steps(size: int, name: str) -> int:
    """Return how long a way is followed: one to the end, the others for as long as is cheap."""
    if name == "plain":
        return NUM_STEPS
    return 8 if size == 2 else 3


RUNS = [(2, name) for name in WAYS] + [(4, name) for name in ("plain", "penalties", "unequal")]
"""Numbers of ranks, and ways to step."""


def replicated_ways(folder: Path) -> dict[tuple[int, str], Any]:
    results = {}
    for size, name in RUNS:
        if in_group(size):
            group = group_of(size)
            results[size, name] = WAYS[name].run(group, part_of(group), num_steps(size, name))
    return results


def small_buckets(folder: Path) -> dict[str, Any]:
    """Send every parameter by itself."""
    placement = Replicated(dist.group.WORLD, bucket_mb=1e-6)
    return {
        name: WAYS[name].run(placement, part_of(dist.group.WORLD), 3)
        for name in ("plain", "penalties")
    }


class Recorder:
    """Counts what torch.distributed is really asked to do."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __enter__(self) -> "Recorder":
        names = [n for n in ("all_reduce", "broadcast", *GATHERINGS) if hasattr(dist, n)]
        self.originals = {name: getattr(dist, name) for name in names}
        for name, original in self.originals.items():
            setattr(dist, name, self._recording(name, original))
        return self

    def __exit__(self, *_: object) -> None:
        for name, original in self.originals.items():
            setattr(dist, name, original)

    def _recording(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def record(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            # Those that gather or scatter have their operand second, after the result.
            operand = args[0] if name in GATHERINGS else tensor
            self.calls.append((name, operand.numel() * operand.element_size()))
            return original(tensor, *args, **kwargs)

        return record


GATHERINGS = (
    "all_gather_into_tensor",
    "all_gather_single",
    "reduce_scatter_tensor",
    "reduce_scatter_single",
)


def count_steps(way: Way, placement: Any, num_steps: int) -> list[dict[str, Any]]:
    """Count collectives of steps after the first, and what the placement says of them."""
    game = SharedGame()
    optimizer = way.build(game, placement)
    group = optimizer.process_group.collectives.group
    way.step(optimizer, game, 0, part_of(group))
    steps = []
    for step in range(1, num_steps + 1):
        before = optimizer.process_group.num_collectives, optimizer.process_group.num_bytes
        with Recorder() as recorder:
            way.step(optimizer, game, step, part_of(group))
        placement, report = optimizer.process_group, optimizer.last_step
        steps.append(
            {
                "calls": recorder.calls,
                "num_collectives": placement.num_collectives - before[0],
                "num_bytes": placement.num_bytes - before[1],
                "num_iter": report.num_iter,
                "num_hvp": report.num_hvp,
                "predicted": report.residual_is_predicted,
            }
        )
    return steps


def counted(folder: Path) -> dict[str, list[dict[str, Any]]]:
    lengths = {"tight": 5, "general-sum": 2, "two-phase": 1, "capturable": 1}
    return {name: count_steps(WAYS[name], dist.group.WORLD, n) for name, n in lengths.items()}


def states(folder: Path) -> list[Tensor]:
    """Return parameters and state after some steps, in which ranks have to be alike to the bit."""
    group = dist.group.WORLD
    game, way = SharedGame(), WAYS["warm-alternate"]
    optimizer = way.build(game, group)
    for step in range(3):
        way.step(optimizer, game, step, part_of(group))
    return tensors_of(game, optimizer)


def tensors_of(game: SharedGame, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return [tensor.detach().clone() for tensor in [*game.params(), *state]]


FAULTS = ("loss", "gradient", "product")


def faults(folder: Path) -> dict[tuple[str, str], Any]:
    """Let one rank have a NaN, in each place, with each policy; and step on."""
    results: dict[tuple[str, str], Any] = {}
    for place in FAULTS:
        for policy in ("fallback", "skip", "raise"):
            results[place, policy] = _fault(place, policy)
    return results


def _fault(place: str, policy: str) -> dict[str, Any]:
    group = dist.group.WORLD
    game = SharedGame()
    optimizer = Way(kwargs={"on_failure": policy}).build(game, group)
    optimizer.step(game.loss(0, part_of(group)))
    before = tensors_of(game, optimizer)
    loss = game.loss(1, part_of(group))
    if dist.get_rank() == 1:
        loss = loss + spoil(place, game)
    raised = None
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            optimizer.step(loss)
    except StepError as error:
        raised = str(error)
    after = tensors_of(game, optimizer)
    optimizer.step(game.loss(2, part_of(group)))
    return {
        "raised": raised,
        "report": str(optimizer.last_step),
        "before": before,
        "after": after,
        "end": tensors_of(game, optimizer),
    }


def spoil(place: str, game: SharedGame) -> Tensor:
    if place == "loss":
        return game.critic[2].bias.sum() * torch.nan
    fault = Fault("nan", at=1)
    weights = game.critic[0].weight.flatten()
    if place == "product":
        # Its gradient is zero, and the products with it are not finite.
        return 0 * fault.wrap(weights) @ game.generator[2].bias.repeat(6)
    return 0 * infinite_slope(game.generator[0].weight)


def missing_parameter(folder: Path) -> Any:
    """Let one rank's loss not depend on a parameter that it does depend on elsewhere."""
    group = dist.group.WORLD
    game = SharedGame()
    optimizer = Way().build(game, Replicated(group, bucket_mb=1e-6))
    for step in range(3):
        if dist.get_rank() == 1:
            game.generator[2].bias.requires_grad_(True)
            hidden = game.generator[:2](game.noise[step, part_of(group)])
            fake = game.critic(hidden @ game.generator[2].weight.T)
            loss = -nn.functional.softplus(fake).mean()
        else:
            loss = game.loss(step, part_of(group))
        optimizer.step(loss)
    return tensors_of(game, optimizer)


def different_parameters(folder: Path) -> dict[str, Any]:
    """Begin differently; then with the first rank's parameters."""
    group = dist.group.WORLD
    game = SharedGame()
    if dist.get_rank() == 2:
        with torch.no_grad():
            game.critic[0].weight[0, 0].nextafter_(torch.tensor(9.0))
            game.critic[0].weight.mul_(1 + 1e-12)
    optimizer = Way().build(game, group)
    try:
        optimizer.step(game.loss(0, part_of(group)))
        error = None
    except ValueError as caught:
        error = str(caught)
    broadcast_parameters(game.generator, game.critic)
    optimizer.step(game.loss(0, part_of(group)))
    return {"error": error, "end": tensors_of(game, optimizer)}


def agreement(folder: Path) -> list[int]:
    """Decide differently on every rank, as devices that round differently may."""
    flags = torch.tensor([dist.get_rank() == 2, True, dist.get_rank() > 0])
    return Replicated(group_of(2)).agree(flags) if in_group(2) else []


def different_lengths(folder: Path) -> list[int]:
    return list(while_all_have(range(3 + dist.get_rank())))


def late(folder: Path) -> str | None:
    """Let the second rank of a group not come, and the first one wait for it in vain."""
    group = dist.new_group([0, 1], timeout=datetime.timedelta(seconds=1))
    error = None
    if dist.get_rank() == 0:
        game = SharedGame()
        try:
            Way().build(game, group).step(game.loss(0))
        except CollectiveError as caught:
            error = str(caught)
    dist.barrier()
    return error


def late_in_a_product(folder: Path) -> str | None:
    """Let the second rank fail between the gradients and the first product."""
    group = dist.new_group([0, 1], timeout=datetime.timedelta(seconds=1))
    error = None
    if dist.get_rank() < 2:
        game = SharedGame()
        optimizer = Way(kwargs={"solver": NoSolver()}).build(game, group)
        try:
            optimizer.step(game.loss(0))
        except (CollectiveError, ArithmeticError) as caught:
            error = str(caught)
    dist.barrier()
    return error


class NoSolver(ConjugateGradient):
    def solve_coupled(self, *args: Any, **kwargs: Any) -> Any:
        # On one rank, without any sign of it beforehand.
        if dist.get_rank() == 1:
            raise ArithmeticError("no solution")
        return super().solve_coupled(*args, **kwargs)


def wrapped(folder: Path) -> dict[str, Any]:
    """Step with DistributedDataParallel as users do, and without it."""
    group = dist.group.WORLD
    runs = []
    for wraps in (False, True):
        game = SharedGame()
        optimizer = Way().build(game, group)
        plain_critic = game.critic
        if wraps:
            game.critic = nn.parallel.DistributedDataParallel(plain_critic)
        for step in range(3):
            optimizer.step(game.loss(step, part_of(group)))
        runs.append(tensors_of(game, optimizer))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        unwrapped = unwrap(game.generator, game.critic)
    return {
        "runs": runs,
        "warnings": [str(warning.message) for warning in caught],
        "unwrapped": unwrapped == (game.generator, plain_critic),
    }


def without_group(folder: Path) -> list[str]:
    game = SharedGame()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Way().build(game, None)
        Way().build(game, Placement())
        ExtraAdam(game.generator.parameters(), game.critic.parameters())
        PolymatrixCGD([game.generator.parameters(), game.critic.parameters()])
    assert all(warning.category is UnsharedWarning for warning in caught)
    return [f"{Path(w.filename).name}: {w.message}" for w in caught]


def copies(folder: Path) -> dict[str, Any]:
    """Copy and pickle an optimizer, and step on with the copies."""
    group = dist.group.WORLD
    game = SharedGame()
    optimizer = Way().build(game, group)
    optimizer.step(game.loss(0, part_of(group)))
    game_copy, copied = copy.deepcopy((game, optimizer))
    copied.step(game_copy.loss(1, part_of(group)))
    other_game, loaded = pickle.loads(pickle.dumps((game, optimizer)))
    try:
        loaded.step(other_game.loss(1, part_of(group)))
        error = None
    except RuntimeError as caught:
        error = str(caught)
    loaded.process_group = group
    loaded.step(other_game.loss(1, part_of(group)))
    optimizer.step(game.loss(1, part_of(group)))
    return {
        "error": error,
        "runs": [
            tensors_of(*run)
            for run in ((game, optimizer), (game_copy, copied), (other_game, loaded))
        ],
    }


REPLICATED = [
    replicated_ways,
    small_buckets,
    counted,
    states,
    faults,
    missing_parameter,
    different_parameters,
    agreement,
    different_lengths,
    wrapped,
    without_group,
    copies,
    late,
    late_in_a_product,
]
