"""The conditions under which a program or a graph can be reused."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compopt._checks import has_hook
from compopt.compiled.bound import BoundTensors
from compopt.compiled.trees import Tree
from compopt.optim.two_player import TwoPlayerCompetitive


class Terms(NamedTuple):
    """What two steps must share to use one program, by the names that messages use."""

    inputs: Any
    networks: Any
    parameters: Any
    hyperparameters: Any
    options: Any
    precision: Any
    counts: Any = None


def terms_of(
    optimizer: TwoPlayerCompetitive,
    bound: BoundTensors,
    tensors: Iterable[Tensor],
    tree: Tree,
    device: str,
    *counts: object,
) -> Terms:
    """Return the terms of the next step.

    Args:
        optimizer: the optimizer.
        bound: the tensors of the optimizer and of its networks.
        tensors: the tensors among the inputs.
        tree: the rest of the inputs.
        device: the device type.
        counts: what the program assumes about the steps taken so far.
    """
    keys = [key for key in ("player", *optimizer.defaults) if key != "lr"]
    return Terms(
        inputs=(_kinds(tensors), [(type(leaf), leaf) for leaf in tree.leaves], tree.spec),
        networks=(bound.are_training(), _kinds(bound.others().values())),
        parameters=_kinds(bound.params),
        hyperparameters=[[group[key] for key in keys] for group in optimizer.param_groups],
        options=(
            optimizer.solver,
            optimizer.solve_for,
            optimizer.warm_start,
            optimizer.on_failure == "fallback",
            optimizer.process_group,
            [has_hook(param) for param in bound.params],
        ),
        precision=(
            torch.get_default_dtype(),
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        ),
        counts=counts,
    )


def _kinds(tensors: Iterable[Tensor]) -> list[tuple[object, ...]]:
    return [(t.shape, t.stride(), t.dtype, t.device) for t in tensors]
