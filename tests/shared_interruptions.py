"""One of two ranks is interrupted at every place of a step in turn; what becomes of both."""

import datetime
import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from interruptions import Interrupted, Lines, Operations
from odd_rank import Run, is_odd
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from compopt.distributed import CollectiveError, Replicated, Sharded

PLACEMENTS = {"replicated": Replicated, "sharded": Sharded}
PLACES: dict[str, type[Operations | Lines]] = {"operation": Operations, "line": Lines}

WAIT_S = {"replicated": 20.0, "sharded": 2.0}
"""Time-outs of groups. Those of sharded state outlive their optimizers, so the time-out passes."""

STRIDES = {
    ("replicated", "operation"): 1,
    ("replicated", "line"): 7,
    ("sharded", "operation"): 5,
    ("sharded", "line"): 41,
}
"""Between the places of the thorough test, which takes half an hour."""

Outcome = tuple[str, str, str, bool]
"""A rank's step, what is then in memory, its next step, and whether that is the right one."""


def interruptions(samples: int | None) -> dict[tuple[str, str], list[Outcome]]:
    """Interrupt rank 1, and let both ranks go on; every place has a group of its own.

    Args:
        samples: places that are tried; None for all that are a stride apart.
    """
    results = {}
    # What has been imported need not be looked through each time.
    gc.freeze()
    for placement in PLACEMENTS:
        for place in PLACES:
            attempts = _Attempts(placement, place)
            stride = STRIDES[placement, place]
            if samples is not None:
                stride = attempts.count // samples
            places = range(stride, attempts.count + 1, stride)
            results[placement, place] = [attempts.interrupted(at) for at in places]
    return results


def some_interruptions(folder: Path) -> dict[tuple[str, str], list[Outcome]]:
    return interruptions(4)


def all_interruptions(folder: Path) -> dict[tuple[str, str], list[Outcome]]:
    return interruptions(None)


def held_by(run: Run) -> list[Tensor]:
    """Return copies of what is in this rank's memory."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in run.tensors()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


class _Attempts:
    """Runs that are one step old, and what they are before and after the next steps."""

    def __init__(self, placement: str, place: str) -> None:
        self._placement, self._place = PLACEMENTS[placement], PLACES[place]
        self._wait = datetime.timedelta(seconds=WAIT_S[placement])
        run = self._start(dist.group.WORLD)
        self._before = held_by(run)
        with self._place() as counter:
            run.step()
        self._after = held_by(run)
        run.step()
        self._next = held_by(run)
        count = torch.tensor(counter.count)
        dist.broadcast(count, 1)
        self.count = int(count)

    def _start(self, group: dist.ProcessGroup) -> Run:
        run = Run.of(self._placement(group))
        run.step()
        return run

    def interrupted(self, at: int) -> Outcome:
        """Return what becomes of this rank if rank 1 is interrupted at place ``at``."""
        # One of them may still be waiting for the other one's message of the place before.
        dist.barrier()
        group = dist.new_group(timeout=self._wait)
        run = self._start(group)
        loss = run.loss()
        first = self._try(partial(run.optimizer.step, loss), at if is_odd() else None)
        now = held_by(run)
        held = next(
            (name for name in ("before", "after") if same(now, getattr(self, f"_{name}"))),
            "mixture",
        )
        if held == "before":
            run.num_steps -= 1
        expected = self._after if held == "before" else self._next
        second = self._try(run.step)
        is_right = same(held_by(run), expected if second == "taken" else now)
        # As where its process ends: the other one does not wait for the time-out.
        del run, loss
        gc.collect()
        dist.destroy_process_group(group)
        return first, held, second, is_right

    def _try(self, call: Callable[[], Any], at: int | None = None) -> str:
        try:
            if at is None:
                call()
            else:
                with self._place(at):
                    call()
        except Interrupted:
            torch.set_grad_enabled(True)
            return "interrupted"
        except CollectiveError:
            return "refused"
        return "taken"
