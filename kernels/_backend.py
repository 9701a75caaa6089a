"""Choice between the implementations of an operation.

Each call chooses from the current backend and the device of its tensors.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

BACKENDS = ("auto", "torch", "triton")

OLDEST_TRITON = (3, 2)
"""The release that pairs with torch 2.6."""

backend_in_force: ContextVar[str] = ContextVar("compopt_backend", default="auto")


@cache
def why_no_triton() -> str | None:
    """Return why Triton cannot be used in this process, or None if it can."""
    try:
        triton = import_module("triton")
    except ImportError:
        return "Triton cannot be imported. Install compopt[triton]"
    version = str(triton.__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2])
    if numbers < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        return f"Triton {version} is not supported. Install {oldest} or newer"
    return None


_ONLY_ON_THE_HOST = (
    "Triton interprets kernels in this process, which it can do for tensors on the CPU alone. "
    "Start Python without TRITON_INTERPRET=1"
)


@cache
def _interprets() -> bool:
    language = import_module("triton.language")
    return type(language.sum).__name__ == "InterpretedFunction"


def _active_device() -> str:
    """Return the type of the device that Triton launches on, "" if there is none."""
    try:
        driver = import_module("triton.runtime.driver").driver.active
    except RuntimeError:
        return ""
    return str(driver.get_active_torch_device().type)


def _why_not_on(device: torch.device) -> str | None:
    """Return why Triton kernels cannot run on ``device``, or None if they can."""
    reason = why_no_triton()
    if reason is not None:
        return reason
    if _interprets() and device.type != "meta":
        # The interpreter runs on the host and accesses only its memory.
        return None if device.type == "cpu" else _ONLY_ON_THE_HOST
    if device.type == "cuda":
        return None
    if device.type != "meta" and _active_device() == device.type:
        return None
    return f"Triton has no kernels for tensors on {device.type}. Move them to a CUDA device"


def _check_name(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(BACKENDS)}, got {backend!r}.")


def resolve_backend(backend: str, device: torch.device | None = None) -> Literal["torch", "triton"]:
    """Return the implementation that ``backend`` selects on ``device``.

    ``"auto"`` is Triton for CUDA tensors if it can be imported, torch otherwise and if ``device``
    is None. Interpreted kernels (``TRITON_INTERPRET=1``) run on the CPU only, and only with
    ``"triton"``.

    Raises:
        ValueError: if ``backend`` is unknown.
        RuntimeError: if it is ``"triton"`` and that is not available; the message says why.
    """
    _check_name(backend)
    if backend == "torch" or (backend == "auto" and device is None):
        return "torch"
    if backend == "auto":
        assert device is not None
        return "triton" if device.type == "cuda" and _why_not_on(device) is None else "torch"
    reason = why_no_triton() if device is None else _why_not_on(device)
    if reason is not None:
        raise RuntimeError(
            f'The backend "triton" was requested, but {_lower(reason)} or use backend="torch".'
        )
    return "triton"


def _lower(sentence: str) -> str:
    return sentence if sentence.startswith("Triton") else sentence[0].lower() + sentence[1:]


@contextlib.contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Return a context in which kernels called by this thread use ``backend``.

    Raises:
        ValueError: if ``backend`` is unknown.
    """
    _check_name(backend)
    token = None
    try:
        token = backend_in_force.set(backend)
        yield
    finally:
        if token is not None:
            backend_in_force.reset(token)


def uses_triton(tensor: Tensor) -> bool:
    """Return True if the current backend uses Triton for ``tensor``.

    Raises:
        RuntimeError: if the backend is ``"triton"`` and that is not available for this tensor.
    """
    backend = backend_in_force.get()
    if backend == "torch" or (backend == "auto" and tensor.device.type != "cuda"):
        return False
    return resolve_backend(backend, tensor.device) == "triton"


@cache
def has_wide_products() -> bool:
    """Return True if Triton is available and multiplies float64 matrices: from 3.5 on."""
    if why_no_triton() is not None:
        return False
    version = import_module("triton").__version__
    return tuple(int(part) for part in version.split(".")[:2]) >= (3, 5)


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return next(arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor))


class UnsupportedError(ValueError):
    """Raised in ``triton.py``, before a kernel is launched, to fall back to torch."""


def dispatch(reference: Callable[P, R]) -> Callable[P, R]:
    """Return a function that calls ``reference`` or its namesake in ``triton.py``.

    The choice depends on the current backend and the device of the first tensor among the
    arguments. Triton is imported when it is first chosen.
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
