"""Short runs of an optimizer on a network game, which can be stopped and gone on with."""

import io
from functools import partial
from typing import Any

import torch
from games import NetworkGame
from optimizer_registry import OptimizerInfo, Variant

# Odd, so that a resumed run that alternates from the beginning again is noticed.
STOP, END = 3, 7

Run = tuple[NetworkGame, torch.optim.Optimizer]


def start(info: OptimizerInfo, variant: Variant | None = None, **options: Any) -> Run:
    game = NetworkGame(**options)
    kwargs = {} if variant is None else variant.kwargs
    return game, info.build(game, **kwargs)


def advance(run: Run, first: int, last: int) -> Run:
    game, optimizer = run
    for batch in range(first, last):
        optimizer.step(partial(game.loss, batch))
    return run


def through_file(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
