"""Full precision inside a penalty, also under autocast."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from compopt._autocast import autocasts


def without_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """Return a context without autocast on the device of ``tensor``.

    Squares of half-precision gradients overflow or vanish.
    """
    return torch.autocast(tensor.device.type, enabled=False)


def widened(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in at least float32, differentiably."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def network_input(samples: Tensor) -> Tensor:
    """Return ``samples`` in the dtype that the network takes outside autocast.

    Under autocast, weights are float32 but samples may be half precision. Without autocast, a
    half-precision network takes half-precision samples.
    """
    return widened(samples) if autocasts(samples) else samples
