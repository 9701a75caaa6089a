"""A replacement of ``triton.jit`` that launches kernels on the device of their tensors."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor


def kernel(function: Callable[..., None] | None = None, **options: Any) -> Any:
    """Make a kernel as ``triton.jit`` does, with the same options.

    Triton launches on the current device and stream, whatever device the tensors are on. This
    kernel is launched on the device of its first tensor, and on the current stream of that device.
    Use ``triton.jit`` for functions that only other kernels call.
    """
    if function is None:
        return functools.partial(kernel, **options)
    made = triton.jit(function, **options)
    # Interpreted kernels run on the host, so they need no device.
    if isinstance(made, triton.JITFunction):
        made.run = _on_device_of_tensors(made.run)
    return made


def _on_device_of_tensors(run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        first = next((arg for arg in args if isinstance(arg, Tensor)), None)
        if first is None or not first.is_cuda:
            return run(*args, **kwargs)
        index = first.get_device()
        if index == torch.cuda.current_device():
            return run(*args, **kwargs)
        with torch.cuda.device(index):
            return run(*args, **kwargs)

    return guarded
