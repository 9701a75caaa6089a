"""Backward passes whose errors name a remedy."""

from collections.abc import Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor

from compopt._remedies import explain

Grads: TypeAlias = Sequence[Tensor | None]
"""Derivatives by the parameters of a player; None where there is none."""

_GRAD = torch.autograd.grad
_ENGINE = getattr(torch.autograd.graph, "_engine_run_backward", None)


def differentiate_once(
    what: str,
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    seeds: Sequence[Tensor],
    *,
    retain_graph: bool = False,
    create_graph: bool = False,
) -> Grads:
    """Return ``sum_i seeds_i^T d outputs_i / d inputs``, with None for unused inputs.

    Args:
        what: name of what is computed, for messages.
        outputs: tensors with graphs.
        inputs: tensors to differentiate by.
        seeds: tensors with the shape, dtype and device of their outputs; not checked.
        retain_graph: whether the graph is used again.
        create_graph: whether the result is differentiated again.

    Raises:
        RuntimeError: if autograd fails; the message has the remedy if it is known.
    """
    retain_graph = retain_graph or create_graph
    try:
        # Call the engine directly: `torch.autograd.grad` checks seeds and overrides, which takes as
        # long as tens of operations. If it was replaced, e.g. to count calls, use the replacement.
        if _ENGINE is None or torch.autograd.grad is not _GRAD:
            return torch.autograd.grad(
                outputs, inputs, seeds, retain_graph, create_graph=create_graph, allow_unused=True
            )
        graphs = (retain_graph, create_graph)
        call = (tuple(outputs), tuple(seeds), *graphs, tuple(inputs), True)
        return cast(Grads, _ENGINE(*call, accumulate_grad=False))
    except RuntimeError as error:
        remedy = explain(error)
        if remedy is None:
            raise
        raise RuntimeError(f"{what} failed. {remedy} Autograd said: {error}") from error
