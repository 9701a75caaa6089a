"""The set-up of an adaptive step in plain torch: the definition of correct."""

import torch
from torch import Tensor


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
) -> None:
    """Form step sizes from an average of squared gradients, and what a solve begins with.

    With ``v = beta average + (1 - beta) grad^2`` the step sizes are ``H = rate / (sqrt(v) + eps)``.
    ``v`` itself is not kept: whether the step is taken is known only later.

    Args:
        average: [n] before this step. Not modified.
        grad: [n]. Not modified.
        beta: decay rate of the average.
        rate: learning rate with its bias correction; 0-dim on the device if it is a tensor.
        eps: added to the root.
        step_sizes: [n] where to write H.
        root: [n] where to write ``S = sqrt(H)``, or None.
        scaled: [n] where to write the scaled gradient, ``sign S grad`` with ``root`` and
            ``sign H grad`` without, or None.
        sign: 1 or -1.
    """
    torch.mul(average, beta, out=step_sizes)
    step_sizes.addcmul_(grad, grad, value=1 - beta).sqrt_().add_(eps)
    torch.div(torch.as_tensor(rate, dtype=step_sizes.dtype), step_sizes, out=step_sizes)
    if root is not None:
        torch.sqrt(step_sizes, out=root)
    if scaled is not None:
        torch.mul(step_sizes if root is None else root, grad, out=scaled)
        if sign < 0:
            scaled.neg_()


def average_squares_(
    average: Tensor, grad: Tensor, beta: float, advance: Tensor | None = None
) -> None:
    """Take ``grad`` into the average: ``average = beta average + (1 - beta) grad^2``, in place.

    Args:
        average: [n]. Modified.
        grad: [n].
        beta: decay rate of the average.
        advance: 0-dim boolean on the device, whether to do so; None for yes.
    """
    if advance is None:
        average.mul_(beta).addcmul_(grad, grad, value=1 - beta)
    else:
        new = (average * beta).addcmul_(grad, grad, value=1 - beta)
        average.copy_(torch.where(advance, new, average))
