"""A check for autocast."""

import torch
from torch import Tensor


def autocasts(tensor: Tensor) -> bool:
    """Return True if autocast is enabled on the device of ``tensor``; not all devices have it."""
    kind = tensor.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
