"""The optimizers that follow the gradient field, as rows of the registry."""

from collections.abc import Callable, Sequence
from typing import Any

import field_steps
import torch
from field_steps import FieldStep
from optimizer_info import (
    COMMON_ERRORS,
    ErrorInput,
    OptimizerInfo,
    Variant,
    bad_numbers,
    bad_scalar,
    lr_variants,
)
from torch import Tensor

from compopt.optim import rivals


def _rival(
    cls: type[torch.optim.Optimizer],
    move: Callable[[FieldStep], Tensor],
    *,
    keys: tuple[str, ...] = (),
    variants: tuple[Variant, ...] = (),
    errors: Sequence[ErrorInput] = (),
    own: tuple[dict[str, Any], ...] = ({}, {}, {}, {}),
    lr: float = 0.05,
) -> OptimizerInfo:
    """Return the row of an optimizer that follows the gradient field."""
    return OptimizerInfo(
        cls=cls,
        state_keys=frozenset(keys),
        variants=(*lr_variants(lr), *variants),
        errors=(*COMMON_ERRORS, *errors),
        move=move,
        own=own,
    )


_ADAM_VARIANTS = (
    Variant("betas-and-eps", {"betas": (0.9, 0.99), "eps": 1e-3}),
    Variant("no-memory", {"betas": (0.0, 0.0)}),
)
_ADAM_ERRORS = (
    *bad_numbers("betas", {"number": 0.9, "single": (0.9,), "none": None}, TypeError),
    *(
        ErrorInput(f"betas-{what}", {"betas": value}, error, r"`betas\[")
        for what, value, error in (
            ("one", (1.0, 0.9), ValueError),
            ("negative", (0.5, -0.1), ValueError),
            ("text", ("0.5", 0.9), TypeError),
        )
    ),
    *bad_scalar("eps"),
)
_ADAM_OWN = ({"betas": (0.9, 0.99)}, {"eps": 0.1}, {"betas": (0.0, 0.5)}, {"eps": 1e-3})
_COEFFICIENT = {
    "variants": (
        Variant("coefficient", {"lr": 0.02, "coefficient": 0.3}),
        Variant("no-coefficient", {"lr": 0.02, "coefficient": 0.0}),
    ),
    "errors": bad_scalar("coefficient"),
    "own": tuple({"coefficient": value} for value in (0.1, 0.0, 1.0, 0.4)),
}
_INTERACTION = {
    "variants": (Variant("interaction", {"lr": 0.05, "interaction": 0.2}),),
    "errors": bad_scalar("interaction", zero=True, none=False),
    "own": ({"interaction": 0.3}, {}, {}, {"interaction": 0.01}),
}


def _with(common: dict[str, Any], *variants: Variant) -> dict[str, Any]:
    return {**common, "variants": (*common["variants"], *variants)}


RIVALS = (
    _rival(rivals.ExtraGradient, field_steps.extragradient),
    _rival(rivals.PastExtraGradient, field_steps.past_extragradient, keys=("past_grad",)),
    _rival(rivals.OGDA, field_steps.ogda, keys=("past_grad",)),
    _rival(
        rivals.ExtraAdam,
        field_steps.extra_adam,
        keys=("exp_avg", "exp_avg_sq"),
        variants=_ADAM_VARIANTS,
        errors=_ADAM_ERRORS,
        own=_ADAM_OWN,
        lr=0.01,
    ),
    _rival(
        rivals.OptimisticAdam,
        field_steps.optimistic_adam,
        keys=("exp_avg", "exp_avg_sq", "past_move"),
        variants=_ADAM_VARIANTS,
        errors=_ADAM_ERRORS,
        own=_ADAM_OWN,
        lr=0.01,
    ),
    _rival(rivals.ConsensusOptimization, field_steps.consensus, **_COEFFICIENT),
    _rival(
        rivals.SGA,
        field_steps.sga,
        **_with(_COEFFICIENT, Variant("align", {"lr": 0.02, "align": True})),
    ),
    _rival(rivals.LCGD, field_steps.lcgd, **_INTERACTION),
    _rival(
        rivals.LOLA,
        field_steps.lola,
        **_with(_INTERACTION, Variant("anticipate", {"lr": 0.05, "anticipate": True})),
    ),
    _rival(
        rivals.LEAD,
        field_steps.lead,
        keys=("delta",),
        variants=(Variant("momentum", {"lr": 0.05, "momentum": 0.5, "coupling": 0.1}),),
        errors=(
            *bad_scalar("coupling"),
            *bad_scalar("momentum"),
            *bad_numbers("momentum", {"one": 1.0}, ValueError),
        ),
        own=({"momentum": 0.5}, {"coupling": 0.2}, {"momentum": 0.1, "coupling": 0.0}, {}),
    ),
)
