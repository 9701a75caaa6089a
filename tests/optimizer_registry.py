"""The optimizers under test, as data.

A new optimizer is a new row in ``OPTIMIZERS``; the generic tests in ``tests/optim`` then run on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from games import NetworkGame, QuadraticGame
from torch import Tensor

from compopt import ACGD, CGD, ConjugateGradient, DirectSolver

Rates = Callable[[dict[str, Any], Tensor, dict[str, Any]], Tensor]


def constant_rates(group: dict[str, Any], grad: Tensor, memory: dict[str, Any]) -> Tensor:
    return torch.full_like(grad, float(group["lr"]))


def adaptive_rates(group: dict[str, Any], grad: Tensor, memory: dict[str, Any]) -> Tensor:
    beta = group["beta"]
    memory["num_steps"] = memory.get("num_steps", 0) + 1
    memory["average"] = beta * memory.get("average", 0.0) + (1 - beta) * grad**2
    correction = (1 - beta ** memory["num_steps"]) ** 0.5
    return float(group["lr"]) * correction / (memory["average"].sqrt() + group["eps"])


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
        rates: its step sizes, from the published formula.
        state_keys: what it keeps for each parameter besides the step count and the warm start.
        variants: valid arguments.
        errors: invalid ones.
    """

    cls: type[torch.optim.Optimizer]
    rates: Rates
    state_keys: frozenset[str]
    variants: tuple[Variant, ...]
    errors: tuple[ErrorInput, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return self.cls.__name__

    def exact(self, game: QuadraticGame | NetworkGame, **kwargs: Any) -> torch.optim.Optimizer:
        """Return the optimizer of ``game`` with a solver that leaves only rounding."""
        kwargs = {"lr": 0.1, "solver": DirectSolver(), **kwargs}
        return self.cls(game.min_params, game.max_params, **kwargs)


def _common_variants(lr: float) -> tuple[Variant, ...]:
    fixed = ConjugateGradient(rtol=0.0, max_iter=3)
    return (
        Variant("defaults", {}),
        Variant("lr", {"lr": lr}),
        Variant("pair-lr", {"lr": (lr, 0.3 * lr)}),
        Variant("tensor-lr", {"lr": torch.tensor(lr, dtype=torch.float64)}),
        Variant("pair-of-tensors-lr", {"lr": (torch.tensor(lr, dtype=torch.float64), 0.3 * lr)}),
        Variant("zero-lr", {"lr": 0.0}),
        Variant("weight-decay", {"lr": lr, "weight_decay": 0.1}),
        Variant("max-grad-norm", {"lr": lr, "max_grad_norm": 0.3}),
        Variant("warm-start", {"lr": lr, "warm_start": True}),
        Variant("solve-for-min", {"lr": lr, "solve_for": "min", "warm_start": True}),
        Variant("solve-for-max", {"lr": lr, "solve_for": "max"}),
        Variant("alternate", {"lr": lr, "solve_for": "alternate"}),
        Variant("alternate-warm", {"lr": lr, "solve_for": "alternate", "warm_start": True}),
        Variant("tight-solver", {"lr": lr, "solver": ConjugateGradient(rtol=1e-5, max_iter=50)}),
        Variant("fixed-count", {"lr": lr, "solver": fixed}),
        Variant("direct-solver", {"lr": lr, "solver": DirectSolver()}),
        Variant("capturable", {"lr": lr, "solver": fixed, "capturable": True}),
        Variant(
            "capturable-warm-decay",
            {
                "lr": torch.tensor(lr, dtype=torch.float64),
                "solver": fixed,
                "capturable": True,
                "warm_start": True,
                "weight_decay": 0.1,
            },
        ),
        Variant("skip", {"lr": lr, "on_failure": "skip"}),
        Variant("raise", {"lr": lr, "on_failure": "raise"}),
    )


def _bad_numbers(name: str, values: dict[str, Any], error: type[Exception]) -> list[ErrorInput]:
    return [
        ErrorInput(f"{name}-{what}", {name: value}, error, f"`{name}`")
        for what, value in values.items()
    ]


_NAN, _INF = float("nan"), float("inf")
_COMMON_ERRORS = (
    *_bad_numbers("lr", {"negative": -0.1, "nan": _NAN, "inf": _INF}, ValueError),
    *_bad_numbers("lr", {"text": "0.1", "none": None, "bool": True, "complex": 1j}, TypeError),
    *_bad_numbers(
        "lr",
        {
            "vector": torch.ones(2),
            "integer-tensor": torch.tensor(1),
            "negative-tensor": torch.tensor(-0.1),
            "nan-tensor": torch.tensor(_NAN),
            "single": (0.1,),
            "triple": (0.1, 0.1, 0.1),
            "negative-max": (0.1, -0.1),
            "negative-min": (-0.1, 0.1),
        },
        ValueError,
    ),
    *_bad_numbers("lr", {"pair-of-text": (0.1, "0.1")}, TypeError),
    *_bad_numbers("weight_decay", {"negative": -0.1, "nan": _NAN, "inf": _INF}, ValueError),
    *_bad_numbers(
        "weight_decay",
        {"text": "0", "none": None, "tensor": torch.tensor(0.1), "pair": (0.1, 0.1)},
        TypeError,
    ),
    *_bad_numbers(
        "max_grad_norm", {"negative": -1.0, "nan": _NAN, "inf": _INF, "zero": 0.0}, ValueError
    ),
    *_bad_numbers("max_grad_norm", {"text": "1", "tensor": torch.tensor(1.0)}, TypeError),
    *_bad_numbers("solve_for", {"unknown": "larger", "none": None, "list": ["min"]}, ValueError),
    *_bad_numbers("on_failure", {"unknown": "ignore", "none": None, "bool": True}, ValueError),
    *_bad_numbers("backend", {"unknown": "cuda", "none": None}, ValueError),
    *_bad_numbers("solver", {"class": 3, "text": "cg"}, TypeError),
    ErrorInput("capturable-solver", {"capturable": True}, ValueError, "fixed iteration count"),
    ErrorInput(
        "capturable-raise",
        {"capturable": True, "solver": DirectSolver(), "on_failure": "raise"},
        ValueError,
        "on_failure",
    ),
    ErrorInput(
        "capturable-alternate",
        {"capturable": True, "solver": DirectSolver(), "solve_for": "alternate"},
        ValueError,
        "alternate",
    ),
    ErrorInput("maximize", {"maximize": True}, TypeError, "maximize"),
)

OPTIMIZERS = (
    OptimizerInfo(
        cls=CGD,
        rates=constant_rates,
        state_keys=frozenset(),
        variants=_common_variants(0.1),
        errors=_COMMON_ERRORS,
    ),
    OptimizerInfo(
        cls=ACGD,
        rates=adaptive_rates,
        state_keys=frozenset({"exp_avg_sq"}),
        variants=(
            *_common_variants(0.01),
            Variant("beta-and-eps", {"beta": 0.9, "eps": 1e-3}),
            Variant("no-memory", {"beta": 0.0}),
        ),
        errors=(
            *_COMMON_ERRORS,
            *_bad_numbers("beta", {"negative": -0.1, "one": 1.0, "nan": _NAN}, ValueError),
            *_bad_numbers(
                "beta", {"text": "0.9", "none": None, "tensor": torch.tensor(0.9)}, TypeError
            ),
            *_bad_numbers("eps", {"negative": -1e-8, "nan": _NAN, "inf": _INF}, ValueError),
            *_bad_numbers(
                "eps", {"text": "0", "none": None, "tensor": torch.tensor(1e-5)}, TypeError
            ),
        ),
    ),
)

each_optimizer = pytest.mark.parametrize("info", OPTIMIZERS, ids=lambda info: info.name)
each_variant = pytest.mark.parametrize(
    ("info", "variant"),
    [
        pytest.param(info, variant, id=f"{info.name}-{variant.description}")
        for info in OPTIMIZERS
        for variant in info.variants
    ],
)
each_error = pytest.mark.parametrize(
    ("info", "invalid"),
    [
        pytest.param(info, invalid, id=f"{info.name}-{invalid.description}")
        for info in OPTIMIZERS
        for invalid in info.errors
    ],
)
