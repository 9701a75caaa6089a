"""Checkpoints by torch.distributed, which initializes the state of an optimizer itself."""

import torch
from covering import pairwise
from games import NetworkGame
from optimizer_registry import KINDS, OptimizerInfo, Variant, each_kind
from snapshots import all_params, assert_same_bits, bits, snapshot
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from training_runs import END, STOP, advance, start, through_file


class Both(nn.Module):
    def __init__(self, game: NetworkGame) -> None:
        super().__init__()
        self.generator, self.critic = game.generator, game.critic


@pairwise(
    info=KINDS,
    lr={"number-lr": 0.05, "tensor-lr": torch.tensor(0.05)},
    flatten={"nested": False, "flattened": True},
)
def test_distributed_checkpoint_round_trip(
    info: OptimizerInfo, lr: float | torch.Tensor, flatten: bool
) -> None:
    """The loader initializes state by a step with zero gradients, learning rate 0, no closure."""
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    warm = Variant("", {"lr": lr, "warm_start": True, "solve_for": "alternate"})
    straight = advance(start(info, warm), 0, END)
    game, optimizer = advance(start(info, warm), 0, STOP)
    saved = through_file(get_optimizer_state_dict(Both(game), optimizer, options=options))
    other = start(info, warm)
    set_optimizer_state_dict(Both(other[0]), other[1], saved, options=options)
    other[0].generator.load_state_dict(game.generator.state_dict())
    other[0].critic.load_state_dict(game.critic.state_dict())
    assert_same_bits(snapshot(other[1]), snapshot(optimizer))
    advance(other, STOP, END)
    assert_same_bits(snapshot(other[1]), snapshot(straight[1]))


@each_kind
def test_distributed_checkpoint_of_a_fresh_optimizer_disturbs_nothing(info: OptimizerInfo) -> None:
    warm = Variant("", {"lr": 0.05, "warm_start": True, "solve_for": "alternate"})
    straight = advance(start(info, warm), 0, STOP)
    run = start(info, warm)
    params = [param.detach().clone() for param in all_params(run[1])]
    get_optimizer_state_dict(Both(run[0]), run[1])
    for param, old in zip(all_params(run[1]), params, strict=True):
        assert torch.equal(bits(param), bits(old))
        assert run[1].state[param]["step"].item() == 0
    advance(run, 0, STOP)
    assert_same_bits(snapshot(run[1]), snapshot(straight[1]))
