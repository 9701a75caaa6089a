"""Explanations and remedies for errors of a second backward pass."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from compopt._graph import walk


class Cause(NamedTuple):
    """A known cause of a failing second derivative.

    Attributes:
        pattern: regular expression to search for in the text of an error.
        sentence: what is wrong.
        remedy: what to do.
    """

    pattern: str
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}"


COMPILED = Cause(
    r"aot_autograd does not currently support double backward",
    "A network compiled by `torch.compile` has no second derivative.",
    "Compute the loss with the uncompiled module (`compiled._orig_mod` if only that is left).",
)
DISTRIBUTED = Cause(
    r"Expected to have finished reduction in the prior iteration",
    "DistributedDataParallel does not reduce what `torch.autograd.grad` gives.",
    "Compute the loss with the network inside, from `compopt.distributed.unwrap(module)` or its "
    "attribute `.module`, and give the optimizer a `process_group`.",
)
SYNCHRONIZED = Cause(
    r"batch_norm_(backward_reduce|backward_elemt|gather_stats|stats)",
    "SyncBatchNorm exchanges statistics in a backward pass that cannot be differentiated again.",
    "Use BatchNorm, whose statistics are those of each rank's own batch, or a normalization within "
    "samples (GroupNorm, LayerNorm, InstanceNorm).",
)
NOT_TWICE = Cause(
    r"once_differentiable",
    "A custom `autograd.Function` whose backward is not differentiable has no second derivative, "
    "and `torch.autograd.grad` silently treats it as zero.",
    "Write the backward in differentiable torch operations, without `once_differentiable`.",
)
WRONG_FUNCTION = (
    "Write the backward of a custom function as the derivative of its forward, in differentiable "
    "torch operations on the inputs and outputs that `save_for_backward` keeps; intermediates and "
    "attributes of `ctx` are constants to a second derivative. Leave out gradient reversal: the "
    "max player's gradient is reversed anyway."
)
WRONG_GRADIENT = (
    "Leave out hooks that change gradients, `detach()`, `no_grad()` or `.data` inside the loss, "
    "and checkpoints with `use_reentrant=True`; pass a term that one player must not see as "
    "`min_penalty` or `max_penalty`."
)
WRONG_THIRD = (
    "Torch's own third derivative of such a layer is not exact, and a product takes it where the "
    "loss holds a derivative of the network. {instead}, or keep that derivative out of the "
    "products: as `min_penalty` or `max_penalty`, with `detach=True`."
)
NOT_FINITE = (
    "A square root or a norm at zero is the usual cause: add a small constant under the root."
)


def called(player: object) -> str:
    """Return the name of a player for messages."""
    return f"the {player} player" if isinstance(player, str) else f"player {player}"


def how_to_move_alone(player: object) -> str:
    """Return instructions for moving one player alone when ``player`` takes no part."""
    if not isinstance(player, str):
        return "To move one player alone, call `step(losses, player=...)` with its number."
    return (
        "To move one player alone, call "
        '`step(loss, player="max")` or `player="min"`, where `step` takes `player`; the max player '
        "raises one loss, and lowers its own of a pair. Elsewhere leave the loss whole and set "
        "`lr` to 0, and `interaction` to None, in the parameter groups of the other; not with LEAD "
        "and OptimisticAdam, whose momentum would still move it."
    )


REACHES_ALL = (
    "If the loss uses them, leave out `detach()` and `no_grad()`, and call "
    "`torch.utils.checkpoint.checkpoint(..., use_reentrant=False)`: a re-entrant checkpoint whose "
    "inputs need no gradient, as at the entry of a network, computes without a graph."
)
TAKES_PART = "Leave out `detach()`, `no_grad()` and checkpoints with `use_reentrant=True`."
NO_SCALER = (
    "`scaler` is for zero-sum games, got a loss for each player: their products would carry the "
    "scale of the losses. Use `torch.autocast(..., dtype=torch.bfloat16)`, which needs no scaler, "
    "or one zero-sum loss."
)
SPARSE = (
    "Use `sparse=False` in embeddings; for those inside a library set `module.sparse = False` on "
    "each that `network.modules()` finds."
)

# The first match counts, so the general cause comes last.
CAUSES: tuple[Cause, ...] = (
    Cause(
        r"derivative for .*(scaled_dot_product|_attention).* is not implemented",
        "Fused attention kernels have no second derivative.",
        "Run the attention part of the forward pass inside `compopt.double_backward_safe()`.",
    ),
    Cause(
        r"derivative for .*(_rnn|lstm_).* is not implemented",
        "Fused recurrent kernels have no second derivative.",
        "Run the recurrent part of the forward pass inside `compopt.double_backward_safe()`.",
    ),
    Cause(
        r"derivative for .*grid_sampler.* is not implemented",
        "This release of torch has no second derivative of `grid_sample`.",
        "Sample with `torch.gather` and explicit bilinear weights, or use a newer torch.",
    ),
    COMPILED,
    Cause(
        r"(?i)checkpoint\S* is (incompatible|not compatible) with \.grad\(\)",
        "Re-entrant checkpoints work with `backward()` only.",
        "Call `torch.utils.checkpoint.checkpoint(..., use_reentrant=False)`.",
    ),
    DISTRIBUTED,
    SYNCHRONIZED,
    Cause(
        r"_will_engine_execute_node",
        "`register_multi_grad_hook` on parameters works with `backward()` only.",
        "Remove the hook, and look at the gradients of a loss with `torch.autograd.grad`.",
    ),
    Cause(
        r"modified by an inplace operation",
        "A tensor that a derivative needs was overwritten after the forward pass had saved it.",
        "If the loss, or a part of it, is older than the last step, which moved the parameters: "
        "compute it again for each step. If a label, a target or a buffer was refilled: make a new "
        "tensor. If a network works in place: use the out-of-place form (`x = x + 1` for `x += 1`, "
        "`inplace=False`).",
    ),
    Cause(
        r"backward through the graph a second time",
        "The graph of the loss was freed before the step.",
        "Do not call `backward()` on the loss, and compute every part of it again for each step.",
    ),
    Cause(
        r"does not require grad and does not have a grad_fn",
        "A part of the loss has no graph.",
        "Compute the loss with gradients enabled, without `detach()` or `item()`.",
    ),
    NOT_TWICE,
    Cause(
        r"derivative for .+ is not implemented|no autograd formula was registered",
        "An operation lacks a derivative that the step needs.",
        "Write it out in elementary torch operations, which have derivatives of every order.",
    ),
)


def independence(pairs: Iterable[tuple[object, object]]) -> str:
    """Return a message for losses that do not depend on other players, with the remedy.

    Args:
        pairs: pairs (i, j) of players such that the loss of i does not depend on j.
    """
    which = " and ".join(f"the loss of {i} does not depend on {j}" for i, j in pairs)
    return (
        f"The players do not interact fully: {which}. If that is not meant, leave out "
        "`detach()`, `no_grad()` and replayed samples: a competitive step needs both losses with "
        "the graphs of both players. If that is intended, each player's own optimizer takes the "
        "same step at less cost."
    )


COMPILER = "torch._functorch.aot_autograd"
"""Loaded once something has been compiled with a backward pass."""


def lost_to_a_compiler(loss: Tensor, grads: Iterable[Tensor | None]) -> bool:
    """Return True if gradients lack a graph because a compiled network computed them.

    The backward pass of a compiled network raises an error about double backward only if one of its
    saved tensors requires a gradient. Otherwise its results look like constants.
    """
    if all(g is None or g.requires_grad for g in grads):
        return False
    return any(type(node).__name__ == "CompiledFunctionBackward" for node in walk([loss.grad_fn]))


def explain(error: RuntimeError) -> str | None:
    """Return the cause of an error raised by autograd, and the remedy.

    Args:
        error: error of a first or second backward pass. Only its text is read.

    Returns:
        Sentences for the message of another error, or None if the cause is unknown.

    Example:
        >>> remedy = explain(RuntimeError("derivative for aten::foo_backward is not implemented"))
        >>> remedy.split(".")[0]
        'An operation lacks a derivative that the step needs'
    """
    text = str(error)
    return next((str(cause) for cause in CAUSES if re.search(cause.pattern, text)), None)
