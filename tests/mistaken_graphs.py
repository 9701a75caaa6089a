"""Mistakes in how a loss is made and differentiated; see ``mistakes``."""

from functools import partial

import torch
from mistakes import Mistake, Play, frozen, general, row
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import compopt
from compopt import CGD, MicroBatches, StepWarning


def twice_on_one_loss(play: Play) -> None:
    optimizer, loss = play.cgd(), play.loss()
    optimizer.step(loss)
    optimizer.step(loss)


def anew_for_each_step(play: Play) -> None:
    optimizer = play.cgd()
    optimizer.step(play.loss())
    optimizer.step(play.loss())


def refilled_label(play: Play) -> None:
    label = torch.ones(4, 1)
    loss = functional.binary_cross_entropy_with_logits(play.critic(play.real), label)
    label.fill_(0)
    loss = loss + functional.binary_cross_entropy_with_logits(play.critic(play.fake()), label)
    play.cgd().step(loss)


def new_label(play: Play) -> None:
    label = torch.ones(4, 1)
    loss = functional.binary_cross_entropy_with_logits(play.critic(play.real), label)
    label = torch.zeros(4, 1)
    loss = loss + functional.binary_cross_entropy_with_logits(play.critic(play.fake()), label)
    play.cgd().step(loss)


def in_place(play: Play, inplace: bool) -> None:
    hidden = torch.tanh(play.critic(play.fake()))
    play.cgd().step(functional.relu(hidden, inplace=inplace).sum() + hidden.sum())


def detached_output(play: Play) -> None:
    loss = play.critic(play.real).mean() - play.critic(play.fake().detach()).mean()
    play.cgd().step(loss)


def frozen_player(play: Play) -> None:
    optimizer = play.cgd()
    frozen(play.generator)
    optimizer.step(play.loss())


def critic_alone(play: Play) -> None:
    optimizer = play.cgd(interaction=0.5)
    for _ in range(3):
        fake = play.fake().detach()
        optimizer.step(play.critic(play.real).mean() - play.critic(fake).mean(), player="max")


def critic_in_turns(play: Play) -> None:
    with play.moves(play.critic):
        critic_alone(play)
    with play.moves():
        play.cgd().step(play.loss())


def unfrozen(play: Play) -> None:
    optimizer = play.cgd()
    frozen(play.generator).requires_grad_(True)
    optimizer.step(play.loss())


def pixel_loss(play: Play) -> Tensor:
    return (play.fake() - play.real).square().mean()


def by_itself_at_first(play: Play) -> None:
    optimizer = play.cgd()
    with play.moves(play.generator):
        for _ in range(3):
            optimizer.step(pixel_loss(play), player="min")
    optimizer.step(play.loss())


def backward_by_hand(play: Play) -> None:
    optimizer = play.cgd()
    play.loss().backward()
    optimizer.step()


def backward_of_the_optimizer(play: Play) -> None:
    optimizer = play.cgd()
    optimizer.backward(play.loss())
    optimizer.step()


def accumulated(play: Play) -> None:
    optimizer = play.cgd()
    for _ in range(2):
        optimizer.backward(play.loss())
    optimizer.step()


def in_micro_batches(play: Play) -> None:
    optimizer = play.cgd()
    optimizer.backward(MicroBatches([play.loss(), play.loss()]))
    optimizer.step()


def independent_pair(play: Play, detach: bool) -> None:
    fake = play.fake()
    own = play.critic(fake.detach() if detach else fake).mean() - play.critic(play.real).mean()
    general(play).step((-play.critic(fake).mean(), own))


def scaled_by_hand(play: Play) -> None:
    optimizer, scaler = play.cgd(), torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer.backward(scaler.scale(play.loss()))
    scaler.step(optimizer)


def never_unscaled(play: Play) -> None:
    optimizer, scaler = play.cgd(), torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer.backward(play.loss(), scaler=scaler)
    optimizer.step()


def with_scaler(play: Play) -> None:
    optimizer, scaler = play.cgd(), torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer.backward(play.loss(), scaler=scaler)
    scaler.step(optimizer)
    scaler.update()


def scaler_of_a_pair(play: Play) -> None:
    general(play).backward(play.pair(), scaler=torch.amp.GradScaler("cpu"))


def pair_in_bfloat16(play: Play) -> None:
    optimizer = general(play)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = play.pair()
    optimizer.backward(loss)
    optimizer.step()


def hooked(play: Play, hook: bool) -> None:
    optimizer = play.cgd()
    if hook:
        play.critic[0].weight.register_hook(lambda grad: grad.clamp(-0.1, 0.1))
    optimizer.backward(play.loss())
    for param in play.critic.parameters():
        param.grad.clamp_(-0.1, 0.1)
    optimizer.step()


class Library(nn.Module):
    """Has an embedding of which its user chooses nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.ModuleDict({"table": nn.Embedding(4, 2, sparse=True)})

    def forward(self) -> Tensor:
        return self.inside["table"](torch.tensor([0, 1]))


def embedded(play: Play, dense: bool) -> None:
    network = Library()
    if dense:
        for module in network.modules():
            module.sparse = False
    optimizer = CGD(network.parameters(), play.critic.parameters())
    before = network.inside["table"].weight.detach().clone()
    optimizer.step(play.critic(network()).mean())
    assert not torch.equal(network.inside["table"].weight, before)


def attended(play: Play, safe: bool) -> None:
    def attention(x: Tensor) -> Tensor:
        heads = x.view(1, 1, 4, 2)
        return functional.scaled_dot_product_attention(heads, heads, heads).view(4, 2)

    optimizer = play.cgd()
    if safe:
        with compopt.double_backward_safe():
            fake = attention(play.fake())
    else:
        fake = attention(play.fake())
    optimizer.step(play.critic(fake).square().mean())


def checkpointed(play: Play, reentrant: bool) -> None:
    play.cgd().step(checkpoint(play.critic, play.fake(), use_reentrant=reentrant).mean())


def hidden(play: Play, reentrant: bool) -> None:
    fake = checkpoint(play.generator, play.noise.requires_grad_(), use_reentrant=reentrant)
    play.cgd().step(play.critic(fake).mean())


def distances(play: Play, elementary: bool) -> None:
    scores = play.critic(play.fake())
    difference = scores.unsqueeze(0) - play.critic(play.real).unsqueeze(1)
    play.cgd().step(
        difference.square().mean()
        if elementary
        else torch.cdist(scores, play.critic(play.real)).square().mean()
    )


OVERWRITTEN = "was overwritten after the forward pass had saved it.*"
ALONE = r'To move one player alone, call `step\(loss, player="max"\)` or `player="min"`'
GRAPHS = (
    row(
        "one-loss-twice",
        twice_on_one_loss,
        RuntimeError,
        OVERWRITTEN + "is older than the last step.*compute it again for each step",
        anew_for_each_step,
    ),
    row(
        "refilled-label",
        refilled_label,
        RuntimeError,
        OVERWRITTEN + "a label, a target or a buffer was refilled: make a new tensor",
        new_label,
    ),
    row(
        "in-place",
        partial(in_place, inplace=True),
        RuntimeError,
        OVERWRITTEN + "works in place: use the out-of-place form.*`inplace=False`",
        partial(in_place, inplace=False),
    ),
    row(
        "detached-output",
        detached_output,
        ValueError,
        r"none of the min player's takes part\. Leave out `detach\(\)`",
        lambda play: play.cgd().step(play.loss()),
    ),
    row("steps-of-the-critic", detached_output, ValueError, ALONE, critic_in_turns),
    row("frozen", frozen_player, ValueError, r"frozen.*call `requires_grad_\(True\)`", unfrozen),
    row("steps-of-the-critic-by-freezing", frozen_player, ValueError, ALONE, critic_in_turns),
    row(
        "warm-up",
        lambda play: play.cgd().step(pixel_loss(play)),
        ValueError,
        "none of the max player's takes part.*" + ALONE,
        by_itself_at_first,
    ),
    row(
        "backward-by-hand",
        backward_by_hand,
        RuntimeError,
        r"Call `step\(loss\)`, or `optimizer\.backward\(loss\)` before `step\(\)`",
        backward_of_the_optimizer,
    ),
    row(
        "backward-twice",
        accumulated,
        StepWarning,
        r"do not accumulate.*`backward\(MicroBatches\(\[loss1, loss2\]\)\)`",
        in_micro_batches,
    ),
    row(
        "detached-pair",
        partial(independent_pair, detach=True),
        StepWarning,
        r"the loss of max does not depend on min\. If that is not meant, leave out `detach\(\)`",
        partial(independent_pair, detach=False),
    ),
    row(
        "scaled-by-hand",
        scaled_by_hand,
        ValueError,
        r"Call `optimizer\.backward\(loss, scaler=scaler\)` with the unscaled loss",
        with_scaler,
    ),
    row(
        "never-unscaled",
        never_unscaled,
        RuntimeError,
        r"Call `scaler\.step\(optimizer\)` and `scaler\.update\(\)` in place of",
        with_scaler,
    ),
    row(
        "scaler-of-a-pair",
        scaler_of_a_pair,
        ValueError,
        r"for zero-sum games, got a loss for each.*autocast\(\.\.\., dtype=torch\.bfloat16\)",
        pair_in_bfloat16,
    ),
    row(
        "scaler-of-a-pair-made-zero-sum",
        scaler_of_a_pair,
        ValueError,
        "or one zero-sum loss",
        with_scaler,
    ),
    row(
        "hook",
        partial(hooked, hook=True),
        ValueError,
        r"must have no hooks.*between `optimizer\.backward\(loss\)`.*and `optimizer\.step\(\)`",
        partial(hooked, hook=False),
    ),
    Mistake(
        "sparse-embedding-in-a-library",
        partial(embedded, dense=False),
        ValueError,
        r"set `module\.sparse = False` on each that `network\.modules\(\)` finds",
        partial(embedded, dense=True),
    ),
    row(
        "attention",
        partial(attended, safe=False),
        RuntimeError,
        r"attention.*inside `compopt\.double_backward_safe\(\)`",
        partial(attended, safe=True),
    ),
    row(
        "re-entrant-checkpoint",
        partial(checkpointed, reentrant=True),
        RuntimeError,
        "use_reentrant=False",
        partial(checkpointed, reentrant=False),
    ),
    row(
        "whole-player-in-a-re-entrant-checkpoint",
        partial(hidden, reentrant=True),
        ValueError,
        "none of the min player's.*Leave out.*checkpoints with `use_reentrant=True`",
        partial(hidden, reentrant=False),
    ),
    row(
        "no-second-derivative",
        partial(distances, elementary=False),
        RuntimeError,
        "Write it out in elementary torch operations",
        partial(distances, elementary=True),
    ),
)
