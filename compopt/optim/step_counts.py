"""Step counts that live on the device, where they cannot be compared."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor


def count_on_device(
    state: Mapping[Tensor, dict[str, Any]],
    params: Sequence[Tensor],
    advance: Literal[True] | Tensor,
) -> None:
    """Add a step to the counts of ``params``, if ``advance`` is true.

    Counts that have advanced together so far are one tensor, which says without a look at the
    values that they are equal: their parameters can be worked on together.

    Args:
        state: of all parameters of an optimizer. Modified.
        params: of one player; each has a count.
        advance: whether the step is taken.
    """
    # Others may keep what they like under keys of their own.
    holders = Counter(
        id(entry["step"])
        for key, entry in state.items()
        if isinstance(key, Tensor) and "step" in entry
    )
    own = Counter(id(state[param]["step"]) for param in params)
    advanced: dict[int, Tensor] = {}
    for param in params:
        count = state[param]["step"]
        if id(count) not in advanced:
            # Whoever shares the count and stays behind keeps it.
            is_shared = holders[id(count)] > own[id(count)]
            advanced[id(count)] = (count.clone() if is_shared else count).add_(advance)
        state[param]["step"] = advanced[id(count)]
