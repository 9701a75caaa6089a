"""A step as a function of tensors: a twin of the optimizer steps on traced tensors."""

from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from compopt._flat import FlatLayout
from compopt._typing import Player
from compopt.distributed import Placement
from compopt.distributed.placement import Pass
from compopt.optim.commit import Commit
from compopt.optim.two_player import TwoPlayerCompetitive
from compopt.optim.vectors import PlayerVectors

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

    It reads no value on the host, and writes only to the tensors that it is given.

    Args:
        optimizer: the optimizer. Its parameters and state are not modified.
        tensors: by parameter, leaf tensors with the same values.
        counts: 0-dim step counts of ``tensors``, in order. Counts are treated as equal only if
            they are the same tensor.
        rates: 0-dim learning rates of the groups.
        vectors: [size of the player] state vectors.
        solved: the player whose move is solved for.
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
    vars(twin)["_make_vectors"] = partial(_GivenVectors, twin, vectors)
    # Share the reporter, so that each warning is given once for both.
    twin._reporter = optimizer._reporter
    # Skip the check for a loss scaled by a `GradScaler`: it reads values.
    twin._call_checks.leave_out("step")
    vars(twin)["_solved"] = lambda: (solved,)
    return twin


class _GivenVectors(PlayerVectors):
    """State that consists of the given vectors, written in place."""

    def __init__(
        self, twin: TwoPlayerCompetitive, vectors: Mapping[StateKey, Tensor], player: Player
    ) -> None:
        groups, placement = twin.param_groups, twin.process_group
        super().__init__(player, groups, twin.state, placement, on_device=True)
        self._given = vectors

    def read(self, key: str) -> Tensor | None:
        return self._given[self.player, key]

    def stage(self, commit: Commit, key: str) -> Tensor:
        return self._given[self.player, key]


class _OneKernelEach(Placement):
    """Gathers a vector in one operation: compilers emit a kernel for each write to a slice."""

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
