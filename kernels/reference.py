"""Every kernel in plain torch: the definition of correct."""

import torch
from torch import Tensor


def cg_update_(
    x: Tensor,
    y: Tensor | None,
    r: Tensor,
    p: Tensor,
    t: Tensor | None,
    q: Tensor,
    alpha: Tensor,
) -> None:
    """Advance the iterates: ``x += alpha p``, ``y += alpha t``, ``r -= alpha q``, in place.

    Args:
        x: [n] iterate. Modified.
        y: [m] coupled iterate, or None. Modified.
        r: [n] residual. Modified.
        p: [n] direction.
        t: [m] image of ``p`` in the coupled space, None if ``y`` is.
        q: [n] product of the operator with ``p``.
        alpha: 0-dim step length, on the device; never read on the host.
    """
    x.addcmul_(p, alpha)
    r.addcmul_(q, alpha, value=-1)
    if y is not None and t is not None:
        y.addcmul_(t, alpha)


def cg_direction_(p: Tensor, r: Tensor, beta: Tensor) -> None:
    """Form the next direction ``p = r + beta p``, in place.

    Args:
        p: [n] direction. Modified.
        r: [n] residual.
        beta: 0-dim factor, on the device; never read on the host.
    """
    torch.addcmul(r, p, beta, out=p)
