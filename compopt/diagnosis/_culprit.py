"""Find the module whose own derivatives are wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from compopt.diagnosis._differences import (
    Precision,
    Verdict,
    compare,
    random_direction,
)
from compopt.diagnosis._graph import GraphLabels, mapped, nodes_of, tensors_in
from compopt.diagnosis._replay import HeldNumbers, Replay
from compopt.diagnosis._terms import terms_of

_Work: TypeAlias = Callable[[Tensor, Sequence[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Culprit:
    """Source of a wrong derivative.

    Attributes:
        module: innermost module whose own derivative is wrong; None if there is none.
        order: order of that derivative, from 1; 0 without a module.
        functions: labels of the custom functions in the module, or outside of all modules.
    """

    module: nn.Module | None
    order: int
    functions: tuple[str, ...]


def find_culprit(replay: Replay, has_wrong_gradient: bool, dtype: torch.dtype) -> Culprit:
    """Find the innermost module with a wrong derivative, each module run on its own inputs.

    Args:
        replay: the game that has a wrong derivative.
        has_wrong_gradient: whether a gradient is wrong, and not only mixed products.
        dtype: the dtype of the computation.
    """
    calls, num_derivatives = _first_calls(replay)
    # Reversed, because inner modules are listed after the modules that contain them.
    alone = [_Alone(replay, module, call) for module, call in reversed(calls.items())]
    precision = Precision.of(dtype)
    # If a gradient is wrong, third derivatives matter only if the loss itself differentiates twice.
    highest = 3 if num_derivatives > has_wrong_gradient else 2
    for order in range(1, highest + 1):
        for suspect in alone:
            if suspect.is_wrong(order, precision):
                where = f"of {replay.players.label(suspect.module)}"
                return Culprit(suspect.module, order, _custom_functions(replay, where))
    return Culprit(None, 0, _custom_functions(replay, "outside of named modules"))


class _CountingDerivatives(TorchFunctionMode):
    """Counts the calls of ``torch.autograd.grad`` in a loss."""

    count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func is torch.autograd.grad
        return func(*args, **(kwargs or {}))


def _first_calls(replay: Replay) -> tuple[dict[nn.Module, tuple[Any, Any]], int]:
    """Return the arguments of each module's first call, and the derivatives that a loss takes."""
    calls: dict[nn.Module, tuple[Any, Any]] = {}

    @torch.no_grad()
    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        if module not in calls:
            calls[module] = mapped((args, kwargs), torch.clone)

    handles = [
        module.register_forward_pre_hook(enter, with_kwargs=True)
        for module in replay.players.modules
    ]
    try:
        with replay.state(), _CountingDerivatives() as derivatives:
            replay.game()
    finally:
        for handle in handles:
            handle.remove()
    called = {module: calls[module] for module in replay.players.modules if module in calls}
    return called, derivatives.count


def _custom_functions(replay: Replay, where: str) -> tuple[str, ...]:
    players = replay.players
    labels = GraphLabels({module: players.label(module) for module in players.modules})
    with replay.state(), labels.tracking():
        terms = terms_of(replay.game()).values()
    labels.extend(terms)
    found = {labels.of(node) for node in nodes_of(terms) if isinstance(node, BackwardCFunction)}
    return tuple(sorted(label for label in found if label.endswith(where)))


class _Alone:
    """A module as a scalar function: the weighted sum of its outputs."""

    def __init__(self, replay: Replay, module: nn.Module, arguments: Any) -> None:
        self.module = module
        self._replay, self._arguments, self._numbers = replay, arguments, HeldNumbers()
        self._inputs = [t for t in tensors_in(arguments) if t.is_floating_point()]
        self._params = [p for p in module.parameters() if p.requires_grad]

    def is_wrong(self, order: int, precision: Precision) -> bool:
        """Return True if the derivative of ``order`` is wrong along two directions."""
        try:
            return all(self._is_wrong_along(order, precision, seed) for seed in range(2))
        # A user's module run on its own may raise anything. It is then not named; the wrong
        # derivative is already known and is reported in any case.
        except Exception:
            return False

    def _is_wrong_along(self, order: int, precision: Precision, seed: int) -> bool:
        width = precision.loss_width if order == 1 else precision.gradient_width
        if width is None:
            return False
        generator = torch.Generator("cpu").manual_seed(seed)
        variables = [*self._inputs, *self._params]
        directions = [random_direction(variables, generator) for _ in range(max(1, order - 1))]
        if order == 1:
            # The value is a scalar, so only its slope can be compared.
            below, above = _value, partial(_slope, direction=directions[0])
        else:
            below = partial(_gradient, directions=directions[:-1])
            above = partial(_gradient, directions=directions)
        base = self._at(below)
        size = float(torch.stack([tensor.norm() for tensor in base]).norm())
        comparison = compare(
            self._at(above),
            base,
            partial(self._at, below, directions[-1]),
            width,
            rtol=precision.rtol,
            noise=precision.noise(size, width),
        )
        return comparison.verdict is Verdict.WRONG

    def _at(
        self, work: _Work, direction: Sequence[Tensor] | None = None, width: float = 0.0
    ) -> list[Tensor]:
        """Return the result of ``work`` at moved inputs and parameters."""
        moved = len(self._inputs)
        steps = [None] * moved if direction is None else list(direction[:moved])
        inputs = [
            (t if step is None else t + width * step).detach().requires_grad_()
            for t, step in zip(self._inputs, steps, strict=True)
        ]
        base = [param.detach().clone() for param in self._params]
        try:
            if direction is not None:
                for param, step in zip(self._params, direction[moved:], strict=True):
                    param.data.add_(step, alpha=width)
            with self._replay.state():
                return work(self._value(inputs), [*inputs, *self._params])
        finally:
            for param, value in zip(self._params, base, strict=True):
                param.data.copy_(value)

    def _value(self, inputs: Sequence[Tensor]) -> Tensor:
        given = iter(inputs)
        # Clones, because the module may write to its inputs in place and a leaf forbids that.
        args, kwargs = mapped(
            self._arguments, lambda t: next(given).clone() if t.is_floating_point() else t
        )
        with self._numbers:
            outcome = self.module(*args, **kwargs)
        outputs = [t for t in tensors_in(outcome) if t.requires_grad]
        generator = torch.Generator("cpu").manual_seed(0)
        weights = [
            torch.randn(t.shape, dtype=t.dtype, generator=generator, device="cpu").to(t.device)
            for t in outputs
        ]
        return torch.stack([(t * w).sum() for t, w in zip(outputs, weights, strict=True)]).sum()


def _value(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    return [value.detach()]


def _slope(value: Tensor, leaves: Sequence[Tensor], direction: Sequence[Tensor]) -> list[Tensor]:
    return [_contracted(_differentiated(value, leaves), direction).detach()]


def _gradient(
    value: Tensor, leaves: Sequence[Tensor], directions: Sequence[Sequence[Tensor]]
) -> list[Tensor]:
    """Return the gradient of the value's derivative along ``directions``."""
    for direction in directions:
        value = _contracted(_differentiated(value, leaves), direction)
    return [grad.detach() for grad in _differentiated(value, leaves)]


def _differentiated(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(leaf) for leaf in leaves]
    grads = torch.autograd.grad(value, list(leaves), create_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True)]


def _contracted(grads: Sequence[Tensor], direction: Sequence[Tensor]) -> Tensor:
    products = [(g * d).sum() for g, d in zip(grads, direction, strict=True)]
    return torch.stack(products).sum()
