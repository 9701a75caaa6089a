"""Calls of autograd whose failures come with their remedies."""

import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from compopt._checks import check_loss
from compopt._remedies import COMPILED, COMPILER, SPARSE, explain, lost_to_a_compiler

Grads: TypeAlias = Sequence[Tensor | None]
"""Derivatives by the parameters of a player; None where there is none."""


def differentiate_once(
    what: str, outputs: Tensor | Sequence[Tensor], inputs: Sequence[Tensor], **options: Any
) -> tuple[Tensor | None, ...]:
    """Differentiate, with None for unused inputs; known failures come with their remedy."""
    try:
        return torch.autograd.grad(outputs, list(inputs), allow_unused=True, **options)
    except RuntimeError as error:
        remedy = explain(error)
        if remedy is None:
            raise
        raise RuntimeError(f"{what} failed. {remedy} Autograd said: {error}") from error


def loss_gradients(
    name: str, loss: Tensor, params: Sequence[Tensor], **options: Any
) -> tuple[Tensor | None, ...]:
    """Return the gradients of a loss, None where it does not depend on a parameter.

    Args:
        name: of the loss, for messages.
        loss: scalar with a graph.
        params: the tensors to differentiate by.
        options: of ``torch.autograd.grad``.

    Raises:
        TypeError, ValueError: if ``loss`` is not a scalar with a graph on the device of ``params``,
            or if a gradient is sparse.
        RuntimeError: if a gradient that is to be differentiated comes from a compiled network.
    """
    check_loss(name, loss, params[0].device)
    grads = differentiate_once(f"The gradient of `{name}`", loss, params, **options)
    for grad in grads:
        if grad is not None and grad.layout != torch.strided:
            raise ValueError(f"Gradients must be dense, got layout {grad.layout}. {SPARSE}")
    is_to_go_on = COMPILER in sys.modules and options.get("create_graph")
    if is_to_go_on and lost_to_a_compiler(loss, grads):
        raise RuntimeError(f"The gradient of `{name}` has no graph. {COMPILED}")
    return grads
