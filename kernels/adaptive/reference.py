"""The set-up of an adaptive step in plain torch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

BLOCK = 2**18
"""Entries of a vector that stay in the processor's caches from one operation to the next."""


def _blocks(*vectors: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Yield corresponding blocks of long vectors on the CPU; other vectors are one block."""
    first = vectors[0]
    assert first is not None
    # Do not split traced vectors: a compiler chooses its own blocks.
    if first.numel() <= BLOCK or first.device.type != "cpu" or isinstance(first, FakeTensor):
        yield vectors
        return
    for start in range(0, len(first), BLOCK):
        at = slice(start, start + BLOCK)
        yield tuple(None if vector is None else vector[at] for vector in vectors)


def adaptive_setup_(
    average: Tensor,
    grad: Tensor,
    beta: float,
    rate: float | Tensor,
    eps: float,
    step_sizes: Tensor,
    root: Tensor | None = None,
    scaled: Tensor | None = None,
    sign: int = 1,
    num_steps: Tensor | None = None,
) -> None:
    """Compute step sizes from an average of squared gradients, and the scaled gradient for a solve.

    With ``v = beta average + (1 - beta) grad^2`` the step sizes are ``H = rate / (sqrt(v) + eps)``.
    ``v`` is not stored: only later is it known whether the step is taken.

    Args:
        average: [n] before this step. Not modified.
        grad: [n]. Not modified.
        beta: decay rate of the average.
        rate: learning rate, including the bias correction unless ``num_steps`` is given. A tensor
            must be 0-dim.
        eps: added to the root.
        step_sizes: [n] receives H.
        root: [n] receives ``S = sqrt(H)``, or None.
        scaled: [n] receives the scaled gradient, ``sign S grad`` with ``root`` and ``sign H grad``
            without, or None.
        sign: 1 or -1.
        num_steps: 0-dim on the device, number of steps before this one, or None. If given, the rate
            is multiplied by ``sqrt(1 - beta^(num_steps + 1))`` on the device.
    """
    if num_steps is not None:
        # In float64: 1 - beta^t cancels.
        rate = rate * (1 - beta ** (num_steps.double() + 1)).sqrt()
    if isinstance(rate, Tensor) and rate.device == step_sizes.device:
        rate = rate.to(step_sizes.dtype)
    else:
        # `new_full` passes the rate as an argument of a launch; a copy would wait for the device.
        rate = step_sizes.new_full((), float(rate))
    for before, piece, factor, own_root, out in _blocks(average, grad, step_sizes, root, scaled):
        torch.mul(before, beta, out=factor)
        factor.addcmul_(piece, piece, value=1 - beta).sqrt_().add_(eps)
        torch.div(rate, factor, out=factor)
        weight = factor if own_root is None else torch.sqrt(factor, out=own_root)
        if out is not None:
            torch.mul(weight, piece, out=out)
            if sign < 0:
                out.neg_()


def average_squares_(
    average: Tensor, grad: Tensor, beta: float, advance: Tensor | None = None
) -> None:
    """Update the average in place: ``average = beta average + (1 - beta) grad^2``.

    Args:
        average: [n]. Modified.
        grad: [n].
        beta: decay rate of the average.
        advance: 0-dim boolean on the device, whether to update; None for True.
    """
    if advance is None:
        for own, piece in _blocks(average, grad):
            own.mul_(beta).addcmul_(piece, piece, value=1 - beta)
    else:
        new = (average * beta).addcmul_(grad, grad, value=1 - beta)
        average.copy_(torch.where(advance, new, average))
