"""Checks of samples, scores and critics, shared by all penalties."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

Critic: TypeAlias = Callable[[Tensor], Tensor]
"""A network or function from samples [n, ...] to scores [n, ...]."""


def describe(critic: object) -> str:
    """Return the name of a critic in error messages."""
    name = type(critic).__name__
    return f"`critic` ({name})" if isinstance(critic, nn.Module) else "`critic`"


def check_samples(name: str, samples: object) -> Tensor:
    """Return ``samples`` if they are floating-point, nonempty and of shape [n, d, ...]."""
    if not isinstance(samples, Tensor):
        raise TypeError(f"`{name}` must be a tensor of samples, got {type(samples).__name__}.")
    if not samples.is_floating_point():
        raise ValueError(
            f"`{name}` must be floating-point samples, got {samples.dtype}. "
            "Convert and scale integer images first."
        )
    if samples.dim() < 2 or samples.numel() == 0:
        raise ValueError(
            f"`{name}` must have shape [n, ...] with a sample axis and at least one more, none of "
            f"them empty, got {tuple(samples.shape)}. For numbers use `{name}.unsqueeze(1)`."
        )
    return samples


def check_pair(real: object, fake: object) -> tuple[Tensor, Tensor]:
    """Return both if they are samples of the same shape and device."""
    first, second = check_samples("real", real), check_samples("fake", fake)
    if first.shape != second.shape or first.device != second.device:
        raise ValueError(
            "`real` and `fake` must have the same shape and device, got "
            f"{tuple(first.shape)} on {first.device} and {tuple(second.shape)} on {second.device}."
        )
    return first, second


def check_scores(critic: Critic, scores: object, size: int) -> Tensor:
    """Return ``scores`` if they are a tensor of shape [size, ...]."""
    if not isinstance(scores, Tensor):
        raise TypeError(
            f"{describe(critic)} must return a tensor of scores, got {type(scores).__name__}. "
            "Wrap it in a function that returns the scores alone."
        )
    if scores.dim() == 0 or scores.shape[0] != size:
        raise ValueError(
            f"{describe(critic)} must return scores of shape [n, ...] for n = {size} samples, got "
            f"{tuple(scores.shape)}. Penalties are per sample: do not reduce over the batch."
        )
    return scores


def check_trainable(what: str, term: Tensor) -> Tensor:
    """Return ``term`` if it requires grad."""
    if not term.requires_grad:
        raise ValueError(
            f"{what} must have trainable weights on which the penalty depends; there are none. "
            "Unfreeze it with `requires_grad_(True)`, or leave the penalty out."
        )
    return term
