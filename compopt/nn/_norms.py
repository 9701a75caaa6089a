"""Autograd functions of normalizations with a closed-form second backward pass.

A layer adds three kinds of node to the graph. ``_Normalize`` is the layer. With ``create_graph``,
its backward pass is recorded as two nodes:

- ``_Backward`` computes the gradients from g. Its own backward returns the tangent for g.
- ``_Curvature`` computes nothing. Its outputs are tokens, zero tensors that ``_Backward`` takes as
  inputs. The tokens' gradients are the cotangents of the layer's gradients, and values to reuse.
  Its backward turns them into the second derivative's part for x and weight.

Autograd runs a node only if it leads to an input that is needed, but a Python function cannot see
which of its inputs are. With a single node, a product for the critic would compute the generator's
curvature at every layer and discard it. Tensors that a node reads without sending gradients to them
are passed inside tuples, where autograd records no edges.

Third derivatives use the same formulas in plain torch operations.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from compopt.nn._rules import BatchNormRule, LayerNormRule, Rule, Written


def refuse_forward_mode() -> NoReturn:
    """Raise: forward mode over a recorded backward pass is not supported."""
    raise RuntimeError(
        "Forward mode cannot pass through the recorded backward pass of a fused layer. "
        "Use reverse mode over it, or `compopt.nn.unfuse(module)`."
    )


def is_dual(*tensors: Tensor | None) -> bool:
    """Return True if a tensor carries a forward-mode tangent."""
    try:
        return any(t is not None and unpack_dual(t).tangent is not None for t in tensors)  # type: ignore[no-untyped-call]
    except RuntimeError:
        # Inside `vmap`, `unpack_dual` fails.
        refuse_forward_mode()


class _Curvature(torch.autograd.Function):
    """Return tokens; the backward returns the second derivative's part for x and weight."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Any, given: Any, rule: Rule) -> Any:
        zero, sums = x.new_zeros(()), given[2].new_zeros(())
        of_weight = rule.weight_shape(x)
        tokens = zero.expand(x.shape), sums.expand(of_weight)
        if isinstance(rule, BatchNormRule):
            return *tokens, sums.expand(2, *of_weight), sums.expand(2, *of_weight)
        return *tokens, zero.expand(x.shape), sums.expand(2, *of_weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, given, ctx.rule = inputs
        ctx.save_for_backward(x, weight, *given)

    @staticmethod
    def backward(ctx: Any, v: Tensor, v_weight: Tensor, reused: Tensor, sums: Tensor) -> Any:
        x, weight, grad, y, mean, invstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            written = Written(ctx.rule, x, y, weight)
            for_x, for_weight = written.curvature(v, v_weight, grad)
        else:
            saved = x, y, weight, mean, invstd
            for_x, for_weight = ctx.rule.curvature((v, v_weight), reused, grad, sums, saved)
        return for_x, None if weight is None else for_weight.to(weight.dtype), None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        refuse_forward_mode()


class _Backward(torch.autograd.Function):
    """The first backward pass; its backward returns the tangent for g and the tokens' gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad: Tensor, v: Any, v_weight: Any, reused: Any, sums: Any, given: Any, rule: Rule
    ) -> Any:
        return rule.backward(grad, given)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *_, given, ctx.rule = inputs
        # Layer norm's curvature does not use the sums, and for a single row they would be g itself.
        sums = output[1:] if isinstance(ctx.rule, BatchNormRule) else (None, None)
        ctx.save_for_backward(*given, *sums)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        *saved, grad_weight, grad_bias = ctx.saved_tensors
        x, y, weight, *_ = saved
        v, v_weight, v_bias = cotangents
        if torch.is_grad_enabled():
            tangent = Written(ctx.rule, x, y, weight).tangent(v, v_weight, v_bias)
            return tangent, v, v_weight, None, None, None, None
        tangent, reused = ctx.rule.tangent(cotangents, saved)
        sums = None if grad_weight is None else torch.stack([grad_weight, grad_bias])
        return tangent, v, v_weight, reused, sums, None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        refuse_forward_mode()


class _Normalize(torch.autograd.Function):
    """The layer."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Any, bias: Any, running: Any, rule: Rule) -> Any:
        return rule.forward(x, weight, bias, running)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, bias, _, ctx.rule = inputs
        y, mean, invstd = output
        ctx.mark_non_differentiable(mean, invstd)
        ctx.dtypes = [None if t is None else t.dtype for t in (weight, bias)]
        # Without an activation, save x in place of the output, which is not needed.
        saved = x, x if ctx.rule.slope == 1.0 else y, weight, mean, invstd
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        saved = x, y, weight, mean, invstd = ctx.saved_tensors
        if is_dual(grad, x, weight):
            for_x, *others = Written(ctx.rule, x, y, weight).gradient(grad)
        elif torch.is_grad_enabled():
            tokens = _hand_out(x, weight, (grad, y, mean, invstd), ctx.rule)
            for_x, *others = _gradients(grad, *tokens, saved, ctx.rule)
        else:
            for_x, *others = ctx.rule.backward(grad, saved)
        for_weight, for_bias = (
            None if dtype is None else other.to(dtype)
            for other, dtype in zip(others, ctx.dtypes, strict=True)
        )
        return for_x, for_weight, for_bias, None, None

    @staticmethod
    def jvp(ctx: Any, v: Any, v_weight: Any, v_bias: Any, *_: Any) -> Any:
        x, y, weight, _, invstd = ctx.saved_tensors
        zero = invstd.new_zeros(()).expand(ctx.rule.weight_shape(x))
        v = torch.zeros_like(x) if v is None else v
        changes = (zero if t is None else t for t in (v_weight, v_bias))
        return Written(ctx.rule, x, y, weight).tangent(v, *changes), None, None


_hand_out: Any = _Curvature.apply
_gradients: Any = _Backward.apply
_normalize: Any = _Normalize.apply


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    slope: float = 1.0,
) -> Tensor:
    """Normalize by the statistics of the batch, then apply a leaky ReLU of slope ``slope``.

    Value, running statistics and derivatives equal those of
    ``torch.nn.functional.batch_norm(..., training=True)``. The second backward pass is a few passes
    over memory instead of dozens.

    Args:
        x: [N, C, ...] with at least two entries per channel.
        running_mean: [C], updated in place, or None.
        running_var: [C], updated in place, or None.
        weight: [C], None for 1.
        bias: [C], None for 0.
        momentum: weight of the batch in the update of the running statistics.
        eps: added to the variance.
        slope: at least 0; 0 for ReLU, 1 for no activation.

    Returns:
        The output, with the shape, dtype and layout of ``x``.

    Derivatives: backward mode of any order, from the third on in plain torch operations; forward
    mode. Forward mode over a recorded backward pass raises an error.

    Raises:
        ValueError: if ``slope`` is negative or there is only one entry per channel.
    """
    if not slope >= 0:
        raise ValueError(f"`slope` must be at least 0, got {slope!r}: y has the sign of x.")
    if x.numel() <= x.shape[1]:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {x.shape}."
        )
    rule = BatchNormRule(eps, momentum, slope)
    output: Tensor = _normalize(x, weight, bias, (running_mean, running_var), rule)[0]
    return output


def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each row, as ``torch.nn.functional.layer_norm`` does.

    Args:
        x: ``[..., *normalized_shape]``.
        normalized_shape: shape of a row.
        weight: in the shape of a row, None for 1.
        bias: in the shape of a row, None for 0.
        eps: added to the variance.

    Returns:
        The output, with the shape and dtype of ``x``. Derivatives as in :func:`batch_norm`.
    """
    rule = LayerNormRule(eps, len(normalized_shape))
    output: Tensor = _normalize(x, weight, bias, (None, None), rule)[0]
    return output
