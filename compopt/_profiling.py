"""Ranges of a step that ``torch.profiler`` shows by name."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import ParamSpec, TypeVar

import torch
from torch.profiler import record_function

P = ParamSpec("P")
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


def marked(part: Range) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that makes a function's calls a range in profiles."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            if not (_FORCED or torch.autograd._profiler_enabled()):  # type: ignore[attr-defined]
                return function(*args, **kwargs)
            # A range of its own for each call: one object may not be entered by two threads.
            with record_function(part.value):
                return function(*args, **kwargs)

        return run

    return decorate
