"""Whether autocast is in force."""

import torch
from torch import Tensor


def autocasts(tensor: Tensor) -> bool:
    """Tell whether autocast is in force on the device of ``tensor``; some have none."""
    kind = tensor.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
