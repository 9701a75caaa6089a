"""Forward passes that can be differentiated twice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def double_backward_safe(*, recurrent: bool = True) -> Iterator[None]:
    """Run the forward pass inside the context with kernels that have a second derivative.

    Attention uses only the math backend of ``scaled_dot_product_attention``: the fused backends
    have no second derivative on any device, including the CPU. Recurrent networks run without
    cuDNN (MIOpen on ROCm), whose recurrent kernels have none either; the CPU kernels have one.

    Wrap the recurrent or attention part of the *forward* pass. The step itself does not need it,
    because each operation's backward pass uses the kernel chosen in the forward pass. Wrapping a
    whole network costs speed: convolutions inside lose cuDNN too, and attention takes memory
    quadratic in the sequence length.

    Args:
        recurrent: whether to disable cuDNN, and with it the fused recurrent kernels.

    Cost: two process-wide settings are changed and restored on exit, also after an error. Threads
    that run a forward pass at the same time are affected.

    Example:
        >>> attention = torch.nn.MultiheadAttention(8, 2)
        >>> x = torch.randn(3, 1, 8)
        >>> with double_backward_safe():
        ...     output, _ = attention(x, x, x, need_weights=False)
    """
    cudnn_enabled = torch.backends.cudnn.enabled
    with sdpa_kernel(SDPBackend.MATH):
        # Not `cudnn.flags()`, which would reset the other flags to its defaults.
        torch.backends.cudnn.enabled = cudnn_enabled and not recurrent
        try:
            yield
        finally:
            torch.backends.cudnn.enabled = cudnn_enabled
