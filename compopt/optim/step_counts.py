"""The count of steps in the state of each parameter."""

from collections import Counter
from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compopt.optim.commit import Advance, Commit

State = MutableMapping[Tensor, dict[str, Any]]


def stage_counts(
    commit: Commit,
    state: State,
    params: Sequence[Tensor],
    advance: Advance | None,
    *,
    on_device: bool,
) -> None:
    """Add the advance of the parameters' counts by a step, from zero where there is none.

    As in torch.optim, a count lives on the host unless a device graph has to advance it.

    Args:
        commit: to add to.
        state: of all parameters of an optimizer.
        params: of one player.
        advance: whether the step is taken; None to begin counts at zero and leave the others.
        on_device: whether counts live on the device. Counts that have advanced together so far are
            then one tensor, which says without a look at the values that they are equal: their
            parameters can be worked on together.
    """
    counts = [state[param].get("step") if param in state else None for param in params]
    if not on_device and advance is True:
        present = [count for count in counts if count is not None]
        if len(present) == len(params):
            commit.add(lambda: torch._foreach_add_(present, 1), present[0])
            return
    # Others may keep what they like under keys of their own.
    entries = [entry for key, entry in state.items() if isinstance(key, Tensor)]
    holders = Counter(id(entry["step"]) for entry in entries if "step" in entry)
    own = Counter(id(count) for count in counts if count is not None)
    advanced: dict[object, Tensor] = {}
    for param, count in zip(params, counts, strict=True):
        key = id(count) if on_device else param
        if key not in advanced:
            if count is None:
                device = param.device if on_device else torch.device("cpu")
                count = torch.zeros((), dtype=torch.float32, device=device)
            elif on_device and advance is not None and holders[id(count)] > own[id(count)]:
                # Whoever shares the count and stays behind keeps it.
                count = count.clone()
            advanced[key] = count
    assigned = {
        param: advanced[id(count) if on_device else param]
        for param, count in zip(params, counts, strict=True)
    }

    def assign() -> None:
        for param, count in assigned.items():
            state[param]["step"] = count

    commit.add(assign)
    steps = list(advanced.values())
    if advance is None or not steps:
        return
    if isinstance(advance, Tensor):
        commit.add(lambda: torch._foreach_add_(steps, [advance] * len(steps)), steps[0])
    else:
        commit.add(lambda: torch._foreach_add_(steps, 1), steps[0])
