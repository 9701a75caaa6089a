"""Steps of every optimizer on ranks that share them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from shared_game import SharedGame, part_of
from torch import Tensor
from torch import distributed as dist

from compopt import ACGD, CGD, PolymatrixCGD
from compopt.distributed import Replicated, Sharded
from compopt.optim import rivals

STEPS = 3
BOX = ("box", -20.0, 15.0)

Build = Callable[..., Any]


def polymatrix(min_params: Any, max_params: Any, **options: Any) -> PolymatrixCGD:
    return PolymatrixCGD([min_params, max_params], **options)


def looking_ahead(min_params: Any, max_params: Any, **options: Any) -> Any:
    optimizer = CGD(min_params, max_params, **options)
    rivals.LookaheadMinmax(optimizer, interval=2)
    return optimizer


COMPETITIVE: dict[str, Build] = {
    "CGD": CGD,
    "ACGD": partial(ACGD, warm_start=True),
    "CGD-clipped": partial(CGD, max_grad_norm=0.1, weight_decay=0.1),
    "PolymatrixCGD": polymatrix,
    "PolymatrixCGD-adaptive": partial(polymatrix, beta=0.9, warm_start=True),
    "LookaheadMinmax": looking_ahead,
}
MIRRORED: dict[str, Build] = {
    "CGD-box": partial(CGD, mirror=BOX),
    "ACGD-box": partial(ACGD, mirror=(BOX, "euclidean")),
    "PolymatrixCGD-box": partial(polymatrix, mirror=BOX),
}
RIVALS: dict[str, Build] = {
    **{
        name: getattr(rivals, name)
        for name in (
            *("OGDA", "ExtraGradient", "PastExtraGradient", "ExtraAdam", "OptimisticAdam"),
            *("LCGD", "ConsensusOptimization"),
        )
    },
    "LOLA": partial(rivals.LOLA, anticipate=True),
    "SGA": partial(rivals.SGA, align=True),
    "LEAD": partial(rivals.LEAD, momentum=0.5),
    "SimultaneousDescentAscent": partial(
        rivals.SimultaneousDescentAscent, optimizer=torch.optim.Adam
    ),
    "AlternatingDescentAscent": partial(
        rivals.AlternatingDescentAscent, optimizer=partial(torch.optim.SGD, momentum=0.9)
    ),
}
BUILDS = {**COMPETITIVE, **MIRRORED, **RIVALS}
CASES = [
    (name, form, kind)
    for name in BUILDS
    for form in ("zero-sum", "pair")
    for kind in (Replicated, Sharded)
    if not (kind is Sharded and name in MIRRORED)
    # What is sharded there is what is sharded of one loss.
    if not (kind is Sharded and name in RIVALS and form == "pair" and name != "LOLA")
    if not (form == "zero-sum" and name.startswith("Polymatrix"))
]


def run(name: str, form: str, group: Any, part: slice) -> tuple[list[Tensor], list[Tensor], Any]:
    """Return the losses of a few steps, where the players end, and the optimizer."""
    game = SharedGame()
    players = game.generator.parameters(), game.critic.parameters()
    optimizer = BUILDS[name](*players, lr=0.05, process_group=group)
    losses: list[Tensor] = []

    def loss(step: int) -> Any:
        one = game.loss(step, part)
        if form == "zero-sum":
            return one
        # Means over samples, so that the mean over ranks is that of the whole batch.
        return [one + game.smoothness(step, part), game.gradient_penalty(step, part) - one]

    for step in range(STEPS):
        argument = partial(loss, step)
        if isinstance(optimizer, PolymatrixCGD):
            found = optimizer.step(argument())
        else:
            found = optimizer.step(
                lambda value=argument: tuple(v) if isinstance(v := value(), list) else v
            )
        losses += found if isinstance(found, tuple | list) else [found]
    return losses, [param.detach().clone() for param in game.params()], optimizer


def every_optimizer(folder: Path) -> dict[tuple[str, str, str], Any]:
    """Take steps with every optimizer in both placements."""
    group = dist.group.WORLD
    results = {}
    for name, form, kind in CASES:
        losses, params, optimizer = run(name, form, kind(group), part_of(group))
        results[name, form, kind.__name__] = {
            "losses": losses,
            "params": params,
            "collectives": optimizer.process_group.num_collectives,
        }
    return results


SHARING = [every_optimizer]
