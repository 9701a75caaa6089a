"""Error messages for wrong arguments that say what to pass instead."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

HINTS: Mapping[str, str] = {
    "betas": "ACGD keeps one average, of squared gradients; its decay rate is `beta`, a "
    "number. ExtraAdam and OptimisticAdam take `betas`.",
    "scaler": "`backward(loss, scaler=scaler)` of CGD and ACGD takes one, before "
    "`scaler.step(optimizer)`.",
    "maximize": "The max player maximizes the loss already.",
}
"""Hints for arguments that other optimizers take and some of these do not."""


def explained(function: F, remedy: str, inherited: Callable[..., Any] | None = None) -> F:
    """Return ``function`` with error messages that say how to pass rejected arguments.

    Args:
        function: the method.
        remedy: how to pass arguments that must not be positional.
        inherited: the method of the base class. If ``function`` takes ``**options``, the signature
            shows the keyword-only parameters of this method in their place.
    """
    signature = inspect.signature(function)
    *own, last = signature.parameters.values()
    if last.kind is last.VAR_KEYWORD:
        known = signature.parameters
        added = [] if inherited is None else inspect.signature(inherited).parameters.values()
        own += [p for p in added if p.kind is p.KEYWORD_ONLY and p.name not in known]
        signature = signature.replace(parameters=own)

    def name(owner: object) -> str:
        method = "" if function.__name__ == "__init__" else f".{function.__name__}"
        return f"`{type(owner).__name__}{method}`"

    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(self, *args, **kwargs)
        except TypeError:
            message = _misfit(name(self), signature, args, kwargs, remedy)
            if message is None:
                raise
        raise TypeError(message)

    call.__signature__ = signature  # type: ignore[attr-defined]
    return cast(F, call)


def _misfit(
    name: str,
    signature: inspect.Signature,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    remedy: str,
) -> str | None:
    """Return an error message for the arguments, None if they fit or Python's own is clear."""
    _, *parameters = signature.parameters.values()
    names = [parameter.name for parameter in parameters]
    for unknown in kwargs:
        if unknown not in names:
            close = difflib.get_close_matches(unknown, names, n=1)
            hint = f"Did you mean `{close[0]}`?" if close else f"It takes {', '.join(names)}."
            return f"{name} takes no `{unknown}`. {HINTS.get(unknown, hint)}"
    count = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if len(args) > count:
        taken = f"{count} positional argument{'s' if count > 1 else ''}"
        return f"{name} takes {taken}, got {len(args)}. {remedy}"
    return None


HOW_TO_PASS: Mapping[str, str] = {
    "__init__": "Pass the parameters of each player, a learning rate for each as `lr=(min, max)`, "
    "and other hyperparameters by name.",
    **dict.fromkeys(
        ("step", "backward"),
        "Pass one loss, or a loss for each player as one pair, `(min_loss, max_loss)`, and "
        "penalties by name: `min_penalty=`, `max_penalty=`.",
    ),
}
"""By method, how to pass arguments to optimizers of two players."""


class ExplainsArguments:
    """Base of classes whose methods say how to pass arguments that they reject."""

    _how_to_pass: ClassVar[Mapping[str, str]] = {}
    """By method, how to pass arguments that must not be positional."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, remedy in cls._how_to_pass.items():
            if name in vars(cls):
                inherited = getattr(super(cls, cls), name, None)
                setattr(cls, name, explained(vars(cls)[name], remedy, inherited))
