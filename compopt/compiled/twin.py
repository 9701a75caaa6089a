"""A step as a function of tensors: that of a twin of the optimizer, on tensors that are traced."""

from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from compopt._flat import FlatLayout
from compopt._typing import Player
from compopt.distributed import Placement
from compopt.distributed.placement import Pass
from compopt.optim.commit import Commit
from compopt.optim.state import FlatState
from compopt.optim.two_player import TwoPlayerCompetitive

StateKey = tuple[Player, str]
"""A player, and the name of a vector of its state."""


def twin_of(
    optimizer: TwoPlayerCompetitive,
    tensors: Mapping[Tensor, Tensor],
    counts: Sequence[Tensor],
    rates: Sequence[Tensor],
    vectors: Mapping[StateKey, Tensor],
    solved: Player,
) -> TwoPlayerCompetitive:
    """Return an optimizer that moves ``tensors`` as ``optimizer`` would move its parameters.

    It reads nothing on the host, and writes to what it was given only.

    Args:
        optimizer: which keeps what it has.
        tensors: by parameter, leaves of the same values.
        counts: 0-dim, of steps, for each of ``tensors`` in order. Only counts that are one tensor
            are taken for equal.
        rates: 0-dim, the learning rates of the groups.
        vectors: [size of the player] of the state.
        solved: whose move is solved for.
    """
    groups = [
        {**group, "params": [tensors.get(param, param) for param in group["params"]], "lr": rate}
        for group, rate in zip(optimizer.param_groups, rates, strict=True)
    ]
    state: MutableMapping[Tensor, dict[str, Any]] = defaultdict(dict)
    for tensor, count in zip(tensors.values(), counts, strict=True):
        state[tensor] = {"step": count}
    twin = object.__new__(type(optimizer))
    twin.__setstate__(
        {
            **optimizer.__getstate__(),
            "param_groups": groups,
            "state": state,
            "capturable": True,
            "backend": "torch",
            "on_failure": "fallback" if optimizer.on_failure == "fallback" else "skip",
            "_placement": _OneKernelEach(),
        }
    )
    twin._flat_state = _GivenVectors(vectors)
    # What is to be said once is said once for both.
    twin._reporter = optimizer._reporter
    # A loss that a `GradScaler` has scaled is looked for by reading its factors.
    twin._call_checks.leave_out("step")
    vars(twin)["_solved"] = lambda: (solved,)
    return twin


class _GivenVectors(FlatState):
    """State that is these vectors, and written in place."""

    def __init__(self, vectors: Mapping[StateKey, Tensor]) -> None:
        self._vectors = vectors

    def read(
        self, state: object, player: Player, params: Sequence[Tensor], key: str
    ) -> Tensor | None:
        return self._vectors[player, key]

    def stage(
        self, commit: Commit, state: object, player: Player, params: Sequence[Tensor], key: str
    ) -> Tensor:
        return self._vectors[player, key]


class _OneKernelEach(Placement):
    """Gathers a vector in one operation: compilers make a kernel of each write to a part."""

    def gather(
        self, source: Pass, out: Tensor, *, added: Any = None, **options: Any
    ) -> Tensor | None:
        def joined(tensors: Sequence[Tensor | None]) -> list[Tensor]:
            pieces = [
                out.new_zeros(param.numel()) if tensor is None else tensor.detach().reshape(-1)
                for tensor, param in zip(tensors, source.params, strict=True)
            ]
            return [torch.cat([piece.to(out.dtype) for piece in pieces])]

        return super().gather(
            source._replace(derive=lambda: joined(source.derive()), layout=FlatLayout.of([out])),
            out,
            added=None if added is None else joined(added),
            **options,
        )
