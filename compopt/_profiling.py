"""Ranges of a step that ``torch.profiler`` shows by name."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any, TypeVar

import torch
from torch.profiler import record_function

R = TypeVar("R")


class Range(Enum):
    """Parts of a step. A product lies within a solve; the rest of a solve is vectors."""

    GRADIENTS = "compopt::gradients"
    SET_UP = "compopt::set_up"
    SOLVE = "compopt::solve"
    PRODUCT = "compopt::product"
    UPDATE = "compopt::update"


_FORCED: list[None] = []


@contextmanager
def forced_ranges() -> Iterator[None]:
    """Enter ranges without a profiler too, for whoever watches the operations themselves.

    Otherwise they are left out: entering them takes some percent of a small step.
    """
    _FORCED.append(None)
    try:
        yield
    finally:
        _FORCED.pop()


_NOTHING: AbstractContextManager[None] = nullcontext()


def is_profiled() -> bool:
    """Return whether ranges are entered."""
    return bool(_FORCED) or torch.autograd._profiler_enabled()  # type: ignore[attr-defined]


def profiled(part: Range) -> AbstractContextManager[Any]:
    """Return a context that is a range in profiles."""
    # A range of its own for each: one object may not be entered by two threads.
    return record_function(part.value) if is_profiled() else _NOTHING


def in_range(part: Range, function: Callable[[], R]) -> Callable[[], R]:
    """Return a function whose calls are a range in profiles."""

    def call() -> R:
        with profiled(part):
            return function()

    return call
