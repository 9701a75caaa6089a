"""Hyperparameters that are set in groups between steps are checked as at construction."""

import math
from typing import Any

import pytest
import torch
from games import QuadraticGame
from optimizer_registry import OptimizerInfo, each_optimizer, each_two_phase
from snapshots import assert_same_bits, snapshot

SET_LATER = {
    "lr": (-0.1, math.nan, math.inf, "0.1", True, torch.tensor(-0.1), torch.ones(1), None),
    "weight_decay": (-1.0, math.nan, "0"),
    "max_grad_norm": (0.0, -1.0),
    "maximize": (True,),
    "beta": (1.0, -0.5),
    "eps": (-1.0,),
    "interaction": (-1.0, math.inf),
}


@each_optimizer
def test_values_set_by_hand_are_checked_at_the_next_step(info: OptimizerInfo) -> None:
    """As at construction: a rate of NaN would be called a product that is not finite."""
    game = QuadraticGame()
    optimizer = info.build(game)
    group = optimizer.param_groups[0]
    for key, values in SET_LATER.items():
        if key not in (*group, "maximize"):
            continue
        good = group.get(key, False)
        for value in values:
            before = snapshot(optimizer)
            group[key] = value
            for _ in range(2):
                with pytest.raises((TypeError, ValueError), match=f"`{key}`"):
                    optimizer.step(game.loss)
            group[key] = good
            assert_same_bits(snapshot(optimizer), before)
    optimizer.step(game.loss)
    rate = group["lr"] = torch.tensor(0.01, dtype=torch.float64)
    optimizer.step(game.loss)
    rate.neg_()
    with pytest.raises(ValueError, match="`lr` must be finite and not negative"):
        optimizer.step(game.loss)
    # By so much a schedule down to zero may miss it.
    rate.fill_(-1e-9)
    optimizer.step(game.loss)


@each_two_phase
def test_values_set_between_the_phases_are_checked(info: OptimizerInfo) -> None:
    game = QuadraticGame()
    optimizer: Any = info.build(game)
    optimizer.backward(game.loss())
    optimizer.param_groups[1]["weight_decay"] = -1.0
    with pytest.raises(ValueError, match="`weight_decay`"):
        optimizer.step()
    optimizer.param_groups[1]["weight_decay"] = 0.0
    optimizer.step()
