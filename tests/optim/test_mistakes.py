"""Each mistake is refused with a message whose advice, followed literally, works."""

import warnings

import pytest
import torch
from covering import one_each, pairwise
from every_optimizer import EVERY, Entry
from mistaken_graphs import GRAPHS
from mistaken_sets import MIRRORS
from mistaken_steps import FORMS
from mistakes import CONSTRUCTIONS, Mistake, Play
from snapshots import bits
from torch import Tensor

from compopt import ACGD, CGD, StepWarning
from compopt._remedies import how_to_move_alone

MISTAKES = (*CONSTRUCTIONS, *MIRRORS, *FORMS, *GRAPHS)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_the_message_names_a_remedy_that_works(mistake: Mistake) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", StepWarning)
        with pytest.raises(mistake.error, match=f"(?s){mistake.match}"):
            mistake.make(Play())
        mistake.remedy(Play())


def test_every_mistake_has_a_name_of_its_own():
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)


def stop(optimizer: torch.optim.Optimizer, player: object) -> list[dict]:
    """Do what messages advise to move the others alone; return the groups as they were."""
    kept = [dict(group) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        if group["player"] == player:
            group["lr"], group["interaction"] = 0.0, None
    return kept


@pytest.mark.parametrize(("entry", "which"), one_each(EVERY, {"first": 0, "second": 1}))
def test_one_player_moves_alone(entry: Entry, which: int) -> None:
    game, optimizer = entry.start()
    entry.step(optimizer, game.loss)
    names = sorted({group["player"] for group in optimizer.param_groups}, reverse=True)
    player = {0: "min", 1: "max"}[which] if names[0] in ("min", "max") else which
    still = [p for g in optimizer.param_groups if g["player"] == player for p in g["params"]]
    others = [p for g in optimizer.param_groups if g["player"] != player for p in g["params"]]
    before = [[param.detach().clone() for param in params] for params in (still, others)]
    kept = stop(optimizer, player)
    entry.step(optimizer, game.loss)
    for group, old in zip(optimizer.param_groups, kept, strict=True):
        group.update(old)
    stayed = all(torch.equal(bits(a), bits(b)) for a, b in zip(still, before[0], strict=True))
    # Momentum that the rate does not scale; the message says so.
    assert stayed == (entry.cls.__name__ not in how_to_move_alone("max"))
    assert any(not torch.equal(a, b) for a, b in zip(others, before[1], strict=True))
    entry.step(optimizer, game.loss)
    assert all(not torch.equal(a, b) for a, b in zip(still, before[0], strict=True))


@pairwise(
    cls=[CGD, ACGD],
    player=["min", "max"],
    solve_for=["min", "max"],
    warm_start=[False, True],
    interaction=[None, 0.7],
)
def test_a_player_that_moves_alone_takes_its_plain_step(
    cls: type[CGD], player: str, solve_for: str, warm_start: bool, interaction: float | None
) -> None:
    """By the formula, in a game with interaction: the reply to an opponent that stays."""
    x, y = (torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True) for _ in range(2))
    lr, beta, eps = 0.1, 0.99, 1e-5
    options = {"solve_for": solve_for, "warm_start": warm_start, "interaction": interaction}
    optimizer = cls([x], [y], lr=lr, weight_decay=0.5, **options)

    def loss() -> Tensor:
        return (x * y).sum() + x.square().sum() - y.square().sum()

    own, sign = (x, 1) if player == "min" else (y, -1)
    stop(optimizer, "max" if player == "min" else "min")
    average = torch.zeros_like(own)
    for step in range(1, 4):
        value = own.detach().clone()
        (grad,) = torch.autograd.grad(sign * loss(), own)
        size = torch.full_like(grad, lr)
        if cls is ACGD:
            average = beta * average + (1 - beta) * grad**2
            size = lr * (1 - beta**step) ** 0.5 / (average.sqrt() + eps)
        optimizer.step(loss())
        torch.testing.assert_close(own.detach(), value * (1 - lr * 0.5) - size * grad)
