"""Run a function on several inputs in two worker processes, with a progress bar for each."""

import multiprocessing
import time
from collections.abc import Callable, Mapping, MutableMapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from rich.progress import Progress

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Bar:
    """A worker's handle to its progress bar."""

    name: str
    shares: MutableMapping[str, float]

    def set(self, share: float) -> None:
        """Set the finished share of the work."""
        self.shares[self.name] = share


def side_by_side(function: Callable[[T, Bar], R], inputs: Mapping[str, T]) -> dict[str, R]:
    """Return ``function(value, bar)`` for each name; the function updates its bar."""
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(max_workers=2, mp_context=context) as pool,
        Progress() as bars,
    ):
        shares = manager.dict(dict.fromkeys(inputs, 0.0))
        tasks = {name: bars.add_task(name, total=1.0) for name in inputs}
        futures = {name: pool.submit(function, v, Bar(name, shares)) for name, v in inputs.items()}
        while not all(future.done() for future in futures.values()):
            time.sleep(0.2)
            for name, share in shares.items():
                bars.update(tasks[name], completed=share)
        return {name: future.result() for name, future in futures.items()}
