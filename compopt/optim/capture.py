"""Checks that a step can be captured as a device graph."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from compopt._warn import warn
from compopt.kernels.lists.tables import Place
from compopt.solvers import Solver


def check_capturable(solver: Solver | None, on_failure: str) -> None:
    """Raise unless all steps run the same operations and read nothing on the host."""
    if not getattr(solver, "has_fixed_count", False):
        raise ValueError(
            f"`capturable` needs a solver with a fixed iteration count, got {solver!r}. "
            "Use e.g. ConjugateGradient(rtol=0.0, max_iter=2)."
        )
    if on_failure == "raise":
        raise ValueError('`capturable` forbids `on_failure="raise"`, which reads a value.')


def warn_of_fixed_rates(params: Iterable[Tensor], groups: Iterable[dict[str, Any]]) -> None:
    """Warn, during a capture, of learning rates that schedulers cannot change in the graph.

    Args:
        params: parameters on one device.
        groups: the group of each.
    """
    for param, group in zip(params, groups, strict=True):
        if not Place.of(param).capturing:
            return
        lr = group["lr"]
        if not isinstance(lr, Tensor) or lr.device != param.device:
            warn(
                f"The graph being captured keeps the present value of `lr`, {float(lr)}, "
                "whatever a scheduler sets. Give a tensor on the device, such as "
                f"lr=torch.tensor({float(lr)}, device={str(param.device)!r}).",
                UserWarning,
            )
            return
