"""Random numbers from the caller's generator, on any device."""

from collections.abc import Sequence

import torch
from torch import Tensor


def _device(like: Tensor, generator: torch.Generator | None) -> torch.device:
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(
            f"`generator` must be a torch.Generator (of random numbers), got "
            f"{type(generator).__name__}. Leave it out: no penalty takes a network under that "
            "name."
        )
    return like.device if generator is None else generator.device


def _dtype(like: Tensor) -> torch.dtype:
    return torch.promote_types(like.dtype, torch.float32)


def uniform(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from U[0, 1) in at least float32, because half precision would round up to 1."""
    device = _device(like, generator)
    drawn = torch.rand(tuple(shape), generator=generator, dtype=_dtype(like), device=device)
    return drawn.to(like.device)


def normal(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from N(0, 1)."""
    device = _device(like, generator)
    drawn = torch.randn(tuple(shape), generator=generator, dtype=_dtype(like), device=device)
    return drawn.to(like.device)


def signs(shape: Sequence[int], like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw -1 or 1, each with probability one half."""
    device = _device(like, generator)
    bits = torch.randint(2, tuple(shape), generator=generator, device=device)
    return (2 * bits - 1).to(device=like.device, dtype=like.dtype)
