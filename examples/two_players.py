"""Shared by the examples: networks, losses, and steps."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from compopt import ACGD, CGD

Optimizer: TypeAlias = ACGD | CGD | torch.optim.Optimizer


def mlp(*sizes: int) -> nn.Sequential:
    """Return a leaky-ReLU perceptron of these widths with orthogonal initial weights."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(sizes):
        linear = nn.Linear(width_in, width_out)
        nn.init.orthogonal_(linear.weight, gain=2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """Return the plain Wasserstein loss of the critic's values, without any constraint."""
    return real.mean() - fake.mean()


def cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """Return the zero-sum cross entropy of the critic's logits, which the critic maximises."""
    return logsigmoid(real).mean() + logsigmoid(-fake).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "wgan": wasserstein,
    "bce": cross_entropy,
}


def two_groups(
    min_params: Iterable[Tensor], max_params: Iterable[Tensor]
) -> list[dict[str, object]]:
    """Return parameter groups for a torch optimizer: minimise the first, maximise the second."""
    return [{"params": list(min_params)}, {"params": list(max_params), "maximize": True}]


def take_step(
    optimizer: Optimizer,
    loss: Tensor,
    min_penalty: Tensor | None = None,
    max_penalty: Tensor | None = None,
) -> None:
    """Move both players with one evaluation of the loss; each also minimises its own penalty."""
    if isinstance(optimizer, ACGD | CGD):
        optimizer.step(loss, min_penalty=min_penalty, max_penalty=max_penalty)
        return
    optimizer.zero_grad()
    loss.backward(retain_graph=min_penalty is not None)
    for group, term in zip(optimizer.param_groups, (min_penalty, max_penalty), strict=True):
        if term is not None:
            term = -term if group["maximize"] else term
            term.backward(inputs=group["params"])
    optimizer.step()
