"""The choice between the implementations of an operation, made at each call."""

import contextlib
import functools
from collections.abc import Callable
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

from ._backend import backend_in_force, uses_triton


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return next(arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor))


P = ParamSpec("P")
R = TypeVar("R")


class UnsupportedError(ValueError):
    """Raised in ``triton.py``, before a kernel is launched, to leave the call to torch."""


def dispatch(reference: Callable[P, R]) -> Callable[P, R]:
    """Return ``reference`` as a function that calls its namesake in ``triton.py`` where it can.

    Which of the two is called depends on the backend in force and on the device of the first tensor
    among the arguments. Triton is imported when it is first chosen.
    """
    module = reference.__module__.replace(".reference", ".triton")

    @functools.wraps(reference)
    def dispatched(*args: P.args, **kwargs: P.kwargs) -> R:
        if backend_in_force.get() != "torch" and uses_triton(_first_tensor(args, kwargs)):
            kernel: Any = getattr(import_module(module), reference.__name__)
            with contextlib.suppress(UnsupportedError):
                found: R = kernel(*args, **kwargs)
                return found
        return reference(*args, **kwargs)

    return dispatched
