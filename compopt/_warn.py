"""Warnings that point at the line in the user's code."""

import inspect
import warnings

_NOT_THEIRS = frozenset({"compopt", "torch"})


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the first caller outside this package and torch.

    A fixed ``stacklevel`` does not work: torch's schedulers, hooks and ``no_grad`` decorators wrap
    ``step`` and so add frames.

    Args:
        message: text of the warning.
        category: class of the warning.
    """
    frame, level = inspect.currentframe(), 1
    while frame is not None and _package(frame.f_globals) in _NOT_THEIRS:
        frame, level = frame.f_back, level + 1
    # The level of this function itself is 1.
    warnings.warn(message, category, stacklevel=level)


def _package(names: dict[str, object]) -> str:
    return str(names.get("__name__", "")).partition(".")[0]
