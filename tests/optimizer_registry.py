"""The optimizers under test, as data.

A new optimizer is a new row in ``OPTIMIZERS``; the generic tests in ``tests/optim`` then run on it.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from optimizer_info import (
    COMMON_ERRORS,
    INF,
    NAN,
    ErrorInput,
    OptimizerInfo,
    Variant,
    bad_numbers,
    bad_scalar,
    lr_variants,
)
from rival_rows import RIVALS
from torch import Tensor

from compopt import ACGD, CGD, ConjugateGradient, DirectSolver


def constant_rates(group: dict[str, Any], grad: Tensor, memory: dict[str, Any]) -> Tensor:
    return torch.full_like(grad, float(group["lr"]))


def adaptive_rates(group: dict[str, Any], grad: Tensor, memory: dict[str, Any]) -> Tensor:
    beta = group["beta"]
    memory["num_steps"] = memory.get("num_steps", 0) + 1
    memory["average"] = beta * memory.get("average", 0.0) + (1 - beta) * grad**2
    correction = (1 - beta ** memory["num_steps"]) ** 0.5
    return float(group["lr"]) * correction / (memory["average"].sqrt() + group["eps"])


def _competitive_variants(lr: float) -> tuple[Variant, ...]:
    fixed = ConjugateGradient(rtol=0.0, max_iter=3)
    return (
        *lr_variants(lr),
        Variant("warm-start", {"lr": lr, "warm_start": True}),
        Variant("solve-for-min", {"lr": lr, "solve_for": "min", "warm_start": True}),
        Variant("interaction", {"lr": lr, "interaction": 5 * lr}),
        Variant("interaction-warm", {"lr": lr, "interaction": lr / 3, "warm_start": True}),
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


_COMPETITIVE_ERRORS = (
    *COMMON_ERRORS,
    *bad_scalar("interaction", none=False),
    *bad_numbers("solve_for", {"unknown": "larger", "none": None, "list": ["min"]}, ValueError),
    *bad_numbers("on_failure", {"unknown": "ignore", "none": None, "bool": True}, ValueError),
    *bad_numbers("backend", {"unknown": "cuda", "none": None}, ValueError),
    *bad_numbers("solver", {"class": 3, "text": "cg"}, TypeError),
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
)


_ADAPTIVE_VARIANTS = (
    Variant("beta-and-eps", {"beta": 0.9, "eps": 1e-3}),
    Variant("no-memory", {"beta": 0.0}),
)
_ADAPTIVE_ERRORS = (
    *bad_numbers("beta", {"negative": -0.1, "one": 1.0, "nan": NAN}, ValueError),
    *bad_numbers("beta", {"text": "0.9"}, TypeError),
    *bad_scalar("eps", none=False),
)
_ADAPTIVE_OWN = (
    {"beta": 0.9, "eps": 1e-3},
    {"beta": 0.5, "interaction": 0.3},
    {"eps": 0.1},
    {"beta": 0.99},
)

# The games of the general tests have their parameters anywhere, so in a box that is large enough.
_BOX = ("box", -20.0, 15.0)


# Without a mirror their steps are those of CGD and ACGD, bit for bit (test_mirrors.py).
_SHARED = (
    "lr",
    "weight-decay",
    "max-grad-norm",
    "solve-for-min",
    "interaction-warm",
    "alternate-warm",
    "capturable-warm-decay",
    "skip",
)


def _shared_variants(lr: float) -> tuple[Variant, ...]:
    return tuple(v for v in _competitive_variants(lr) if v.description in _SHARED)


def _mirror_variants(lr: float) -> tuple[Variant, ...]:
    return (
        Variant("box", {"lr": lr, "mirror": _BOX}),
        Variant("box-of-one-player", {"lr": lr, "mirror": ("euclidean", _BOX)}),
        Variant("box-warm", {"lr": lr, "mirror": _BOX, "warm_start": True}),
        Variant("box-interaction", {"lr": lr, "mirror": _BOX, "interaction": 3 * lr}),
        Variant(
            "box-capturable",
            {
                "lr": lr,
                "mirror": _BOX,
                "solver": ConjugateGradient(rtol=0.0, max_iter=3),
                "capturable": True,
            },
        ),
    )


_MIRROR_ERRORS = (
    *bad_numbers(
        "mirror",
        {
            "unknown": "ball",
            "unknown-of-one": ("euclidean", "ball"),
            "box-without-bounds": "box",
            "empty-box": ("box", 1.0, 1.0),
            "infinite-box": ("box", 0.0, INF),
        },
        ValueError,
    ),
    *bad_numbers(
        "mirror", {"none": None, "number": 1.0, "text-bounds": ("box", "0", "1")}, TypeError
    ),
)


COMPETITIVE = (
    OptimizerInfo(
        cls=CGD,
        rates=constant_rates,
        state_keys=frozenset(),
        variants=(*_competitive_variants(0.1), *_mirror_variants(0.01)),
        own=({"mirror": _BOX}, {}, {"mirror": ("box", -8.0, 30.0)}, {"interaction": 0.1}),
        errors=(*_COMPETITIVE_ERRORS, *_MIRROR_ERRORS),
    ),
    OptimizerInfo(
        cls=ACGD,
        rates=adaptive_rates,
        state_keys=frozenset({"exp_avg_sq"}),
        variants=(
            *_shared_variants(0.01),
            *_ADAPTIVE_VARIANTS,
            *_mirror_variants(0.001),
        ),
        own=(
            {"beta": 0.9, "mirror": _BOX},
            *_ADAPTIVE_OWN[1:3],
            {"mirror": ("box", -8.0, 30.0)},
        ),
        errors=(*_COMPETITIVE_ERRORS, *_ADAPTIVE_ERRORS, *_MIRROR_ERRORS),
    ),
)

OPTIMIZERS = (*COMPETITIVE, *RIVALS)


def _each(infos: Sequence[OptimizerInfo]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("info", infos, ids=lambda info: info.name)


def _each_of(infos: Sequence[OptimizerInfo], name: str, field: str) -> pytest.MarkDecorator:
    """Parametrize by the entries of a row's field, each with its row."""
    cases = [
        pytest.param(info, case, id=f"{info.name}-{case.description}")
        for info in infos
        for case in getattr(info, field)
    ]
    return pytest.mark.parametrize(("info", name), cases)


def _options(infos: Sequence[OptimizerInfo]) -> list[Any]:
    """Return each variant with one class that solves a system and with one that does not."""
    able: dict[tuple[bool, str], list[tuple[OptimizerInfo, Variant]]] = {}
    for info in infos:
        for variant in info.variants:
            key = (info.is_competitive, variant.description)
            able.setdefault(key, []).append((info, variant))
    counts = dict.fromkeys(map(id, infos), 0)
    cases = []
    # Those that few classes have come first, and each goes to the class with the fewest so far.
    for pairs in sorted(able.values(), key=len):
        info, variant = min(pairs, key=lambda pair: counts[id(pair[0])])
        counts[id(info)] += 1
        cases.append(pytest.param(info, variant, id=f"{info.name}-{variant.description}"))
    assert all(counts.values())
    return cases


def _errors() -> list[Any]:
    """Return each mistake once, and one in each argument that a class checks itself."""
    cases: dict[tuple[str, str], tuple[OptimizerInfo, ErrorInput]] = {}
    seen: set[str] = set()
    for number, info in enumerate(OPTIMIZERS):
        by_argument: dict[tuple[str, ...], list[ErrorInput]] = {}
        for invalid in info.errors:
            by_argument.setdefault(tuple(invalid.kwargs), []).append(invalid)
        for invalids in by_argument.values():
            new = [invalid for invalid in invalids if invalid.description not in seen]
            if not new and invalids[0] not in (*COMMON_ERRORS, *_COMPETITIVE_ERRORS):
                new = [invalids[number % len(invalids)]]
            for invalid in new:
                seen.add(invalid.description)
                cases[info.name, invalid.description] = info, invalid
    return [pytest.param(*case, id="-".join(names)) for names, case in cases.items()]


def _named(*names: str) -> list[OptimizerInfo]:
    return [info for info in OPTIMIZERS if info.name in names]


# One of each base class and way to take a loss: a solve, a rule on gradients here or ahead.
KINDS = _named("ACGD", "ExtraAdam", "OptimisticAdam")
COMPETITIVE_KINDS = _named("ACGD", "CGD")

each_optimizer = _each(OPTIMIZERS)
"""For what every class computes or declares itself."""
each_kind = _each(KINDS)
"""For what they have from their base classes."""
each_competitive = _each(COMPETITIVE)
each_competitive_kind = _each(COMPETITIVE_KINDS)
each_two_phase = _each(KINDS[:1])
"""For the two phases, which the base class has; all are compared by their options."""
each_kind_of_one_point = _each([info for info in KINDS if not info.needs_closure])
each_variant = pytest.mark.parametrize(
    ("info", "variant"),
    [
        case
        for case in _each_of(OPTIMIZERS, "variant", "variants").args[1]
        # What is a rate and what stands for one is read in one place.
        if case.values[0] in (*COMPETITIVE, *KINDS)
        or case.values[1].description not in ("defaults", "lr", "tensor-lr", "pair-of-tensors-lr")
    ],
)
each_option = pytest.mark.parametrize(("info", "variant"), _options(OPTIMIZERS))
"""Each way to set an optimizer up, and each class."""
each_stateful_option = pytest.mark.parametrize(
    ("info", "variant"),
    [
        case
        for case in each_option.args[1]
        if case.values[1].kwargs.keys() & {"warm_start", "capturable", "on_failure", "betas"}
    ],
)
"""Those that decide what is kept besides parameters and groups."""
each_competitive_option = pytest.mark.parametrize(("info", "variant"), _options(COMPETITIVE))
ENTRIES = {
    f"{info.name}-{method}": (info, method)
    for info in KINDS
    for method in (("step", "backward") if info.is_competitive else ("step",))
}
each_entry = pytest.mark.parametrize(("info", "method"), ENTRIES.values(), ids=ENTRIES)
"""Each way to take a loss."""
each_error = pytest.mark.parametrize(("info", "invalid"), _errors())
