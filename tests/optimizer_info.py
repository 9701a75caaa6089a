"""What tests have to know about an optimizer, as data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from field_steps import FieldStep
from games import NetworkGame, QuadraticGame
from torch import Tensor

from compopt import DirectSolver

Rates = Callable[[dict[str, Any], Tensor, dict[str, Any]], Tensor]


@dataclass(frozen=True)
class Variant:
    """Valid arguments and what they are for."""

    description: str
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class ErrorInput:
    """Arguments that must be refused, and how."""

    description: str
    kwargs: dict[str, Any]
    error: type[Exception]
    match: str


@dataclass(frozen=True)
class OptimizerInfo:
    """One optimizer class under test.

    Attributes:
        cls: the class.
        state_keys: what it keeps for each parameter besides the step count and the warm start.
        variants: valid arguments.
        errors: invalid ones.
        rates: step sizes of a competitive optimizer, from the published formula.
        move: the move of one that follows the gradient field, from the published formula.
        own: hyperparameters of its own for each of four groups.
    """

    cls: type[torch.optim.Optimizer]
    state_keys: frozenset[str]
    variants: tuple[Variant, ...]
    errors: tuple[ErrorInput, ...] = field(repr=False)
    rates: Rates | None = None
    move: Callable[[FieldStep], Tensor] | None = None
    own: tuple[dict[str, Any], ...] = ({}, {}, {}, {})

    @property
    def is_competitive(self) -> bool:
        """Whether a step solves a linear system, as CGD's does."""
        return self.rates is not None

    @property
    def needs_closure(self) -> bool:
        """Whether a loss will not do, because it is evaluated at another point."""
        return getattr(self.cls, "needs_closure", False)

    @property
    def has_momentum(self) -> bool:
        """Whether groups have what schedulers cycle as momentum."""
        return self.is_competitive is False and bool({"exp_avg", "delta"} & self.state_keys)

    def argument(self, make: Callable[[], Any]) -> Any:
        """Return what ``step`` takes: what ``make`` returns, or a closure that calls it."""

        def closure() -> Any:
            loss = make()
            return loss() if callable(loss) and not isinstance(loss, Tensor) else loss

        return closure if self.needs_closure else make()

    def arguments(self, **kwargs: Any) -> dict[str, Any]:
        """Return ``kwargs`` without those that are about the linear system, if there is none."""
        about_solve = {"solver", "warm_start", "solve_for", "on_failure", "capturable", "backend"}
        return {k: v for k, v in kwargs.items() if self.is_competitive or k not in about_solve}

    def build(self, game: QuadraticGame | NetworkGame, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the optimizer of ``game``; arguments about a linear system are left out."""
        return self.cls(game.min_params, game.max_params, **self.arguments(**kwargs))

    @property
    def name(self) -> str:
        return self.cls.__name__

    def exact(self, game: QuadraticGame | NetworkGame, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the optimizer of ``game`` with a solver that leaves only rounding."""
        kwargs = {"lr": 0.1, "solver": DirectSolver(), **kwargs}
        return self.build(game, **kwargs)


def lr_variants(lr: float) -> tuple[Variant, ...]:
    return (
        Variant("defaults", {}),
        Variant("lr", {"lr": lr}),
        Variant("pair-lr", {"lr": (lr, 0.3 * lr)}),
        Variant("tensor-lr", {"lr": torch.tensor(lr, dtype=torch.float64)}),
        Variant("pair-of-tensors-lr", {"lr": (torch.tensor(lr, dtype=torch.float64), 0.3 * lr)}),
        Variant("zero-lr", {"lr": 0.0}),
        Variant("weight-decay", {"lr": lr, "weight_decay": 0.1}),
        Variant("max-grad-norm", {"lr": lr, "max_grad_norm": 0.3}),
    )


def bad_numbers(name: str, values: dict[str, Any], error: type[Exception]) -> list[ErrorInput]:
    return [
        ErrorInput(f"{name}-{what}", {name: value}, error, f"`{name}`")
        for what, value in values.items()
    ]


NAN, INF = float("nan"), float("inf")
COMMON_ERRORS = (
    *bad_numbers("lr", {"negative": -0.1, "nan": NAN, "inf": INF}, ValueError),
    *bad_numbers("lr", {"text": "0.1", "none": None, "bool": True, "complex": 1j}, TypeError),
    *bad_numbers(
        "lr",
        {
            "vector": torch.ones(2),
            "integer-tensor": torch.tensor(1),
            "negative-tensor": torch.tensor(-0.1),
            "nan-tensor": torch.tensor(NAN),
            "single": (0.1,),
            "triple": (0.1, 0.1, 0.1),
            "negative-max": (0.1, -0.1),
            "negative-min": (-0.1, 0.1),
        },
        ValueError,
    ),
    *bad_numbers("lr", {"pair-of-text": (0.1, "0.1")}, TypeError),
    # What is said of numbers that are none is the same for all: the learning rate has each of them.
    *bad_numbers("weight_decay", {"negative": -0.1, "nan": NAN, "inf": INF}, ValueError),
    *bad_numbers("weight_decay", {"none": None, "pair": (0.1, 0.1)}, TypeError),
    *bad_numbers("max_grad_norm", {"negative": -1.0, "zero": 0.0}, ValueError),
    *bad_numbers("max_grad_norm", {"text": "1", "tensor": torch.tensor(1.0)}, TypeError),
    ErrorInput("maximize", {"maximize": True}, TypeError, "maximize"),
)


def bad_scalar(name: str, *, zero: bool = False, none: bool = True) -> list[ErrorInput]:
    """Return what is refused for a hyperparameter that must not be negative."""
    values = {"negative": -0.1, **({"zero": 0.0} if zero else {})}
    kinds = {"text": "0", **({"none": None} if none else {})}
    return [*bad_numbers(name, values, ValueError), *bad_numbers(name, kinds, TypeError)]
