"""Warnings that point at the line that can be changed."""

import inspect
import warnings

_NOT_THEIRS = frozenset({"compopt", "torch"})


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the first caller outside this package and torch, which wraps some of its calls.

    A scheduler wraps ``step``, hooks and ``no_grad`` decorators do too, so that no fixed number of
    levels leads there.

    Args:
        message: of the warning.
        category: its class.
    """
    frame, level = inspect.currentframe(), 1
    while frame is not None and _package(frame.f_globals) in _NOT_THEIRS:
        frame, level = frame.f_back, level + 1
    # The level of this function itself is 1.
    warnings.warn(message, category, stacklevel=level)


def _package(names: dict[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
