"""Named ranges of a step for ``torch.profiler``."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any, TypeVar

import torch
from torch.profiler import record_function

R = TypeVar("R")


class Range(Enum):
    """Parts of a step. A solve contains products; the rest of it is vector operations."""

    GRADIENTS = "compopt::gradients"
    SET_UP = "compopt::set_up"
    SOLVE = "compopt::solve"
    PRODUCT = "compopt::product"
    UPDATE = "compopt::update"


_FORCED: list[None] = []


@contextmanager
def forced_ranges() -> Iterator[None]:
    """Enter ranges even without a profiler, for code that intercepts the operations.

    Otherwise ranges are skipped: entering them takes a few percent of a small step.
    """
    _FORCED.append(None)
    try:
        yield
    finally:
        _FORCED.pop()


_NOTHING: AbstractContextManager[None] = nullcontext()


def is_profiled() -> bool:
    """Return True if ranges are entered."""
    return bool(_FORCED) or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]


def profiled(part: Range) -> AbstractContextManager[Any]:
    """Return a context that shows as a range in profiles."""
    # A new object for each call: two threads must not enter the same one.
    return record_function(part.value) if is_profiled() else _NOTHING


def in_range(part: Range, function: Callable[[], R]) -> Callable[[], R]:
    """Return ``function`` such that each call shows as a range in profiles."""

    def call() -> R:
        with profiled(part):
            return function()

    return call
