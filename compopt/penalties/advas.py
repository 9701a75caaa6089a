"""AdvAs: lead the generator to where the gradient of the adversary is small."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from compopt._checks import (
    check_choice,
    check_iterable,
    check_loss,
    check_non_negative,
    check_params,
)
from compopt._typing import Player
from compopt.penalties._precision import widened
from compopt.penalties._random import signs
from compopt.penalties.base import Penalty, configured_first

Estimator: TypeAlias = Literal["exact", "rademacher"]
Weights: TypeAlias = nn.Module | Iterable[Tensor]


def adversary_gradient_norm(
    loss: Tensor,
    critic: Weights,
    *,
    second_loss: Tensor | None = None,
    estimator: Estimator = "exact",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the squared norm of the adversary's gradient, or an estimate of it.

    With ``g`` the gradient of the adversary's loss in its weights y,

    - ``"exact"``: ``r = <g, g>``, or ``<g, g'>`` with the gradient ``g'`` of ``second_loss``;
    - ``"rademacher"``: ``r = <e, g>^2``, or ``<e, g> <e, g'>``, with independent random signs e.

    On mini-batches ``<g, g>`` overestimates the squared norm of the expected gradient by the
    variance of g; ``<g, g'>`` of two independent batches does not, but can be negative. Random
    signs add variance but no bias. They suit frameworks with forward-mode derivatives and
    comparisons with the paper; here reverse mode computes all of g in both cases.

    The sign of the loss does not matter. The derivative in the generator's weights x is
    ``2 D_xy f g``: one mixed product.

    Args:
        loss: scalar with graph, the zero-sum loss or the adversary's own.
        critic: the adversary, or its parameters; frozen parameters are ignored.
        second_loss: the same loss on an independent batch, or None.
        estimator: "exact" or "rademacher".
        generator: generator of the random signs.

    Returns:
        A scalar with a graph to both players; only the generator should minimise it.
        ``optimizer.step(loss, min_penalty=r)`` differentiates it for the generator only. Elsewhere,
        do not call ``backward()`` on it without ``inputs=``.

    Raises:
        TypeError, ValueError: if a loss is not a scalar with a graph, the critic has no trainable
            weights, or a loss does not depend on them.

    Cost: for each loss, a backward pass with its graph.
    """
    check_choice("estimator", estimator, ("exact", "rademacher"))
    params = _params(critic)
    losses = [check_loss("loss", loss, params[0].device)]
    if second_loss is not None:
        losses.append(check_loss("second_loss", second_loss, params[0].device))
    gradients = [_gradient(one, params) for one in losses]
    first, last = gradients[0], gradients[-1]
    if estimator == "exact":
        return _dot(first, last)
    directions = [signs(param.shape, widened(param), generator) for param in params]
    return _dot(directions, first) * _dot(directions, last)


def advas_coefficient(loss: Tensor, penalty: Tensor, params: Weights) -> Tensor:
    """Return ``min(1, |grad loss| / |grad penalty|)`` in the generator's weights, as a constant.

    The term's gradient is then never larger than that of the loss. If the penalty has no gradient,
    the coefficient is 1.

    Args:
        loss: the generator's own loss.
        penalty: result of :func:`adversary_gradient_norm`.
        params: the generator, or its parameters.

    Returns:
        A 0-dim tensor without graph. Does not synchronise.

    Cost: a backward pass of each.
    """
    weights = _params(params, "params")
    norms = []
    for name, term in (("loss", loss), ("penalty", penalty)):
        check_loss(name, term, weights[0].device)
        grads = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
        squares = [widened(grad).square().sum() for grad in grads if grad is not None]
        norms.append(torch.stack(squares).sum().sqrt() if squares else weights[0].new_zeros(()))
    has_gradient = norms[1] > 0
    ratio = norms[0] / norms[1].masked_fill(~has_gradient, 1.0)
    return torch.where(has_gradient, ratio.clamp(max=1.0), 1.0).detach()


@configured_first
@dataclass(frozen=True)
class AdvAs(Penalty):
    """``coefficient * |grad_y L|^2``, the squared norm of the adversary's gradient.

    As in the paper, the default coefficient None is not tuned: it is
    ``min(1, |grad_x L| / |grad_x r|)`` at each step. There is no public code to compare with.

    In a zero-sum game with a fixed coefficient of eta / 2, gradient descent with learning rate eta
    on ``f + r`` moves the generator by ``-eta (g_x + eta D_xy f g_y)``, which is exactly its step
    of linearised competitive gradient descent (LCGD). The term is therefore partly redundant in CGD
    and ACGD; use it with optimizers that have no competitive term.

    For: the generator. Sign: added to a zero-sum loss, but only the generator should minimise it:
    use ``min_penalty``. Couples: yes. Order: 2, so 3 inside a competitive loss. Cost:
    :func:`adversary_gradient_norm`.

    Attributes:
        coefficient: factor >= 0, or None for self-scaling, which takes two more backward passes.
        estimator: "exact" or "rademacher".

    References:
        Munk, Harvey and Wood (2020). https://arxiv.org/abs/2010.01274
    """

    player: ClassVar[Player | None] = "min"
    order: ClassVar[int] = 2

    coefficient: float | None = None
    estimator: Estimator = "exact"

    def __post_init__(self) -> None:
        if self.coefficient is not None:
            check_non_negative("coefficient", self.coefficient)
        check_choice("estimator", self.estimator, ("exact", "rademacher"))

    @property
    def couples(self) -> bool:
        """Always True: the adversary's gradient depends on both players."""
        return True

    def __call__(
        self,
        loss: Tensor,
        critic: Weights,
        min_params: Weights | None = None,
        *,
        second_loss: Tensor | None = None,
        generator_loss: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the term.

        Args:
            loss: the zero-sum loss, or the adversary's own, with its graph. If it includes a
                penalty on the adversary, the term leads to where the gradient of the penalized loss
                vanishes; otherwise to where that of the game itself vanishes, as in all benchmarks
                here.
            critic: the adversary, or its parameters.
            min_params: the generator, or its parameters; for the self-scaling coefficient.
            second_loss: the loss on an independent batch, for an unbiased estimate.
            generator_loss: the loss that the generator minimises, for the self-scaling coefficient;
                None is ``loss``, which is right in a zero-sum game.
            generator: generator of the random signs.
        """
        penalty = adversary_gradient_norm(
            loss,
            critic,
            second_loss=second_loss,
            estimator=self.estimator,
            generator=generator,
        )
        if self.coefficient is not None:
            return self.coefficient * penalty
        if min_params is None:
            raise ValueError(
                "`min_params` must be given for the self-scaling coefficient. Pass the generator, "
                "or choose a number: `AdvAs(coefficient=...)`."
            )
        own = loss if generator_loss is None else generator_loss
        return advas_coefficient(own, penalty, min_params) * penalty


def _params(weights: Weights, name: str = "critic") -> list[Tensor]:
    """Return the trainable parameters of a network or an iterable of parameters."""
    entries = weights.parameters() if isinstance(weights, nn.Module) else weights
    params = list(check_iterable(name, entries))
    check_params(name, params)
    trainable = [param for param in params if param.requires_grad]
    if not trainable:
        raise ValueError(
            f"`{name}` must have trainable weights; all are frozen. "
            "Unfreeze them with `requires_grad_(True)`, or leave the penalty out."
        )
    return trainable


def _gradient(loss: Tensor, params: list[Tensor]) -> list[Tensor]:
    """Return the gradient with its graph; zeros for parameters that the loss does not use."""
    with torch.enable_grad():
        grads = torch.autograd.grad(loss, params, create_graph=True, allow_unused=True)
    if all(grad is None for grad in grads):
        raise ValueError(
            "`loss` must depend on the weights of `critic`; it does not. Do not detach its scores."
        )
    return [
        torch.zeros_like(param) if grad is None else grad
        for param, grad in zip(params, grads, strict=True)
    ]


def _dot(left: list[Tensor], right: list[Tensor]) -> Tensor:
    products = [
        (widened(one) * widened(other)).sum() for one, other in zip(left, right, strict=True)
    ]
    return torch.stack(products).sum()
