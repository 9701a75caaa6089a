"""Autograd of normalizations whose second backward pass is a closed form.

A layer makes three kinds of node. ``_Forward`` is the layer. When a graph of its backward pass is
asked for, that pass is recorded as two nodes:

- ``_Backward`` computes the gradients from g. Its own backward is the tangent, sent to g.
- ``_Curvature`` computes nothing: it hands out tokens, empty stand-ins for the cotangents of the
  gradients, to ``_Backward``, which returns those cotangents as the tokens' gradients. Its backward
  is the part for x and weight.

Autograd runs a node only if it leads to a wanted input, but tells a Python function nothing about
which of its inputs are wanted. With one node for both, a product into the critic would form the
generator's curvature at every layer and throw it away. Tensors that a node reads but must not send
gradients to are given inside tuples, in which autograd makes no edges.

The third derivative is taken through the same formulas written out in plain operations.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from compopt.kernels import forms, norms

Pair = tuple[Tensor, Tensor]
Triple = tuple[Tensor, Tensor, Tensor]
Running = tuple[Tensor | None, Tensor | None]
Saved = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]
"""x; y, or x where y is not needed; weight; mean; inverse deviation."""


class BatchNormRule(NamedTuple):
    """Batch normalization over dimension 1, followed by a leaky ReLU of slope ``slope``."""

    eps: float
    momentum: float = 0.0
    slope: float = 1.0

    def dims(self, x: Tensor) -> tuple[int, ...]:
        """Return the dimensions that share a mean."""
        return (0, *range(2, x.dim()))

    def sum_to_weight(self, x: Tensor) -> Tensor:
        """Return the sums over the entries that share a weight."""
        return x.sum(self.dims(x))

    def weight_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of a weight."""
        return (x.shape[1],)

    def affine(self, vector: Tensor, x: Tensor) -> Tensor:
        """Return a weight in a shape that broadcasts against ``x``."""
        return vector.view(1, -1, *[1] * (x.dim() - 2))

    def forward(self, x: Tensor, weight: Any, bias: Any, running: Running) -> Any:
        """Return output, mean and inverse deviation."""
        return forms.batch_norm(x).batch_norm_forward(
            x, weight, bias, *running, self.momentum, self.eps, self.slope
        )

    def backward(self, grad: Tensor, saved: Saved) -> Any:
        """Return the gradients for x, weight and bias."""
        return forms.batch_norm(grad).batch_norm_backward(grad, *saved, slope=self.slope)

    def tangent(self, v: Triple, saved: Saved) -> Any:
        """Return the tangent, and what the curvature can reuse."""
        x, y, weight, mean, invstd = saved
        return forms.batch_norm(saved[0]).batch_norm_tangent(
            *v, x, y, weight, mean, invstd, self.slope
        )

    def curvature(self, v: Pair, reused: Tensor, grad: Tensor, sums: Pair, saved: Saved) -> Any:
        """Return the second derivative's part for x and weight."""
        x, y, weight, mean, invstd = saved
        return forms.batch_norm(grad).batch_norm_curvature(
            *v, reused, grad, *sums, x, y, weight, mean, invstd, self.slope
        )


class LayerNormRule(NamedTuple):
    """Layer normalization over the last ``num_dims`` dimensions."""

    eps: float
    num_dims: int
    slope: float = 1.0

    def dims(self, x: Tensor) -> tuple[int, ...]:
        """Return the dimensions that share a mean."""
        return tuple(range(x.dim() - self.num_dims, x.dim()))

    def sum_to_weight(self, x: Tensor) -> Tensor:
        """Return the sums over the entries that share a weight."""
        return x.sum_to_size(self.weight_shape(x))

    def weight_shape(self, x: Tensor) -> tuple[int, ...]:
        """Return the shape of a weight."""
        return tuple(x.shape[x.dim() - self.num_dims :])

    def affine(self, vector: Tensor, x: Tensor) -> Tensor:
        """Return a weight in a shape that broadcasts against ``x``."""
        return vector

    def forward(self, x: Tensor, weight: Any, bias: Any, running: Running) -> Any:
        """Return output, mean and inverse deviation."""
        form = forms.layer_norm(x, self.num_dims)
        return form.layer_norm_forward(x, weight, bias, self.num_dims, self.eps)

    def backward(self, grad: Tensor, saved: Saved) -> Any:
        """Return the gradients for x, weight and bias."""
        return forms.layer_norm(grad, self.num_dims).layer_norm_backward(
            grad, saved[0], *saved[2:], num_dims=self.num_dims
        )

    def tangent(self, v: Triple, saved: Saved) -> Any:
        """Return the tangent, and what the curvature can reuse."""
        return forms.layer_norm(saved[0], self.num_dims).layer_norm_tangent(
            *v, saved[0], *saved[2:], num_dims=self.num_dims
        )

    def curvature(self, v: Pair, reused: Tensor, grad: Tensor, _: Any, saved: Saved) -> Any:
        """Return the second derivative's part for x and weight."""
        x, _, weight, mean, invstd = saved
        return forms.layer_norm(grad, self.num_dims).layer_norm_curvature(
            *v, reused, grad, x, weight, mean, invstd, self.num_dims
        )


Rule = BatchNormRule | LayerNormRule


class _Written:
    """The formulas of ``kernels/norms.py`` in plain operations, for derivatives of any order."""

    def __init__(self, rule: Rule, x: Tensor, y: Tensor, weight: Tensor | None) -> None:
        self._rule, self._dims, self._x = rule, rule.dims(x), x
        self._y = y
        centered = x - self._mean(x)
        self._r = (self._mean(centered.square()) + rule.eps).rsqrt()
        self._x_hat = centered * self._r
        self._weight = x.new_ones(()) if weight is None else rule.affine(weight, x)

    def _mean(self, v: Tensor) -> Tensor:
        return v.mean(self._dims, keepdim=True)

    def _projected(self, v: Tensor) -> Tensor:
        x_hat = self._x_hat
        return self._r * (v - self._mean(v) - x_hat * self._mean(v * x_hat))

    def _masked(self, v: Tensor) -> Tensor:
        return norms.leaky_relu_backward(v, self._y.detach(), self._rule.slope)

    def gradient(self, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients for x, weight and bias."""
        grad, to_weight = self._masked(grad), self._rule.sum_to_weight
        for_x = self._projected(self._weight * grad).to(self._x.dtype)
        return for_x, to_weight(grad * self._x_hat), to_weight(grad)

    def tangent(self, v: Tensor, v_weight: Tensor, v_bias: Tensor) -> Tensor:
        """Return the change of the output."""
        rule, x = self._rule, self._x
        moved = self._weight * self._projected(v)
        shift = rule.affine(v_weight, x) * self._x_hat + rule.affine(v_bias, x)
        return self._masked(moved + shift).to(v.dtype)

    def curvature(self, v: Tensor, v_weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Return the part for x and weight."""
        rule, x, x_hat, r = self._rule, self._x, self._x_hat, self._r
        grad = self._masked(grad)
        h = self._weight * grad
        c, d = self._mean(h * x_hat), self._mean(v * x_hat)
        projected = self._projected(v)
        a = self._mean(projected * h)
        total = rule.affine(v_weight, x) * grad - r * (c * v + d * h)
        for_x = self._projected(total) - r * a * x_hat
        return for_x.to(x.dtype), rule.sum_to_weight(projected * grad)


def refuse_forward_mode() -> NoReturn:
    """Raise for forward mode over a backward pass that is recorded."""
    raise RuntimeError(
        "Forward mode cannot pass through the recorded backward pass of a fused layer. "
        "Use reverse mode over it, or `compopt.nn.unfuse(module)`."
    )


def is_dual(*tensors: Tensor | None) -> bool:
    """Tell whether a tensor carries a tangent of forward mode."""
    try:
        return any(t is not None and unpack_dual(t).tangent is not None for t in tensors)  # type: ignore[no-untyped-call]
    except RuntimeError:
        # Inside `vmap` a tangent cannot be looked at.
        refuse_forward_mode()


class _Curvature(torch.autograd.Function):
    """Hand out tokens; the backward sends the second derivative's part to x and weight."""

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
            written = _Written(ctx.rule, x, y, weight)
            for_x, for_weight = written.curvature(v, v_weight, grad)
        else:
            saved = x, y, weight, mean, invstd
            for_x, for_weight = ctx.rule.curvature((v, v_weight), reused, grad, sums, saved)
        return for_x, None if weight is None else for_weight.to(weight.dtype), None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> NoReturn:
        refuse_forward_mode()


class _Backward(torch.autograd.Function):
    """The first backward pass; its backward sends the tangent to g and fills the tokens."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad: Tensor, v: Any, v_weight: Any, reused: Any, sums: Any, given: Any, rule: Rule
    ) -> Any:
        return rule.backward(grad, given)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *_, given, ctx.rule = inputs
        # Layer norm's curvature does without the sums, which for a single row are g itself.
        sums = output[1:] if isinstance(ctx.rule, BatchNormRule) else (None, None)
        ctx.save_for_backward(*given, *sums)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        *saved, grad_weight, grad_bias = ctx.saved_tensors
        x, y, weight, *_ = saved
        v, v_weight, v_bias = cotangents
        if torch.is_grad_enabled():
            tangent = _Written(ctx.rule, x, y, weight).tangent(v, v_weight, v_bias)
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
        # Without an activation the output is not needed, and stands for nothing.
        saved = x, x if ctx.rule.slope == 1.0 else y, weight, mean, invstd
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        saved = x, y, weight, mean, invstd = ctx.saved_tensors
        if is_dual(grad, x, weight):
            for_x, *others = _Written(ctx.rule, x, y, weight).gradient(grad)
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
        return _Written(ctx.rule, x, y, weight).tangent(v, *changes), None, None


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

    The same as ``torch.nn.functional.batch_norm(..., training=True)`` in value, running statistics
    and derivatives, with a second backward pass of a few passes over memory instead of dozens.

    Args:
        x: [N, C, ...] with at least two entries a channel.
        running_mean: [C], updated in place; None for none.
        running_var: [C] likewise.
        weight: [C], None for 1.
        bias: [C], None for 0.
        momentum: of the update of the running statistics.
        eps: added to the variance.
        slope: at least 0: 0 is ReLU, 1 no activation.

    Returns:
        The output, of the shape, dtype and layout of ``x``.

    Derivatives: backward and forward mode, of any order in backward mode; from the third on in
    plain operations. Forward mode over the backward pass is refused by autograd.

    Raises:
        ValueError: if ``slope`` is negative or there is one entry a channel.
    """
    if not slope >= 0:
        raise ValueError(f"`slope` must be at least 0, got {slope!r}: the side is read off y.")
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
        x: [..., *normalized_shape].
        normalized_shape: shape of a row.
        weight: of the shape of a row, None for 1.
        bias: of the shape of a row, None for 0.
        eps: added to the variance.

    Returns:
        The output, of the shape and dtype of ``x``. Derivatives as in :func:`batch_norm`.
    """
    rule = LayerNormRule(eps, len(normalized_shape))
    output: Tensor = _normalize(x, weight, bias, (None, None), rule)[0]
    return output
