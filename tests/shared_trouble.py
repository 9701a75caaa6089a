"""What ranks do in the tests of ranks that skip steps, fail, come too late, or not at all."""

import copy
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from odd_rank import Run, attempt, is_odd, short_group
from torch import Tensor
from torch import distributed as dist

from compopt import ConjugateGradient
from compopt.distributed import (
    CollectiveError,
    batch_weight,
    broadcast_parameters,
    while_all_have,
)


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
    batches = while_all_have(range(3))
    next(batches)
    results["batch"] = attempt(lambda: next(while_all_have(range(3)) if is_odd() else batches))
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

    def solve_coupled(self, *args: Any, **kwargs: Any) -> Any:
        if is_odd() and not FailsOnce._has_failed:
            FailsOnce._has_failed = True
            raise ArithmeticError("no solution")
        return super().solve_coupled(*args, **kwargs)


def missing_step(folder: Path) -> dict[str, Any]:
    """End the loop of one rank earlier than those of the others."""
    group = short_group()
    run = Run.of(group)
    run.step()
    result = attempt(run.step) if not is_odd() else None
    dist.barrier()
    return {"result": result}


def bad_sample(folder: Path) -> dict[str, Any]:
    """Let the data of one rank raise where ranks look for their batches together."""
    group = short_group()

    def samples() -> Iterator[int]:
        yield 0
        if is_odd():
            raise ValueError("bad sample")
        yield 1

    result = attempt(lambda: list(while_all_have(samples(), process_group=group)))
    dist.barrier()
    return result


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


TROUBLE = [
    error_before,
    skipped_step,
    skipped_parts,
    error_in_the_middle,
    missing_step,
    bad_sample,
    destroyed,
    killed,
]
"""The last five fail when time-outs have passed, and the last one kills a rank."""
