"""Forward passes that can be differentiated twice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def double_backward_safe(*, recurrent: bool = True) -> Iterator[None]:
    """Select kernels with a second derivative, for the forward pass inside.

    Attention runs in the math backend of ``scaled_dot_product_attention`` alone: the fused ones
    have no second derivative on any device, the CPU included. Recurrent networks run without cuDNN
    (MIOpen on ROCm), whose kernels have none either; those of the CPU do and are left alone.

    Put it around the recurrent or attention part of the *forward* pass; the step itself needs
    nothing, because each operation remembers how it was computed. Around a whole network it would
    cost speed: convolutions inside lose cuDNN too, and attention takes memory quadratic in the
    sequence length.

    Args:
        recurrent: whether to switch off the fused recurrent kernels, with the rest of cuDNN.

    Cost: two settings of the process are changed and put back, also on error. Threads that run a
    forward pass at the same time are affected.

    Example:
        >>> attention = torch.nn.MultiheadAttention(8, 2)
        >>> x = torch.randn(3, 1, 8)
        >>> with double_backward_safe():
        ...     output, _ = attention(x, x, x, need_weights=False)
    """
    cudnn_enabled = torch.backends.cudnn.enabled
    with sdpa_kernel(SDPBackend.MATH):
        # The one attribute, because `cudnn.flags()` would set the other ones to its own defaults.
        torch.backends.cudnn.enabled = cudnn_enabled and not recurrent
        try:
            yield
        finally:
            torch.backends.cudnn.enabled = cudnn_enabled
