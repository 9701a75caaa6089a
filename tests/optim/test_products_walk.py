"""Products walk only that part of the graph that couples the players."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from compopt import ACGD, ConjugateGradient

visits: Counter[str] = Counter()


class Watched(torch.autograd.Function):
    """Passes values on; its backward pass is watched in turn."""

    @staticmethod
    def forward(ctx, value: Tensor, name: str) -> Tensor:
        ctx.name = name
        return value.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        visits[f"{ctx.name}, first order"] += 1
        return WatchedBackward.apply(grad, ctx.name), None


class WatchedBackward(torch.autograd.Function):
    """Passes gradients on, and counts when it is differentiated."""

    @staticmethod
    def forward(ctx, grad: Tensor, name: str) -> Tensor:
        ctx.name = name
        return grad.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        visits[f"{ctx.name}, product"] += 1
        return grad, None


@pytest.mark.parametrize("solve_for", ["min", "max"])
def test_products_leave_out_the_branch_of_real_data(solve_for) -> None:
    torch.manual_seed(0)
    generator = nn.Linear(3, 4)
    critic = nn.Sequential(nn.Linear(4, 5), nn.Softplus(), nn.Linear(5, 1))
    solver = ConjugateGradient(rtol=0.0, max_iter=3)
    optimizer = ACGD(
        generator.parameters(), critic.parameters(), solver=solver, solve_for=solve_for
    )

    def scores(samples: Tensor, name: str) -> Tensor:
        return Watched.apply(critic[:2](samples), name)

    visits.clear()
    real = critic[2](scores(torch.randn(8, 4), "real")).square().mean()
    fake = critic[2](scores(generator(torch.randn(8, 3)), "fake")).square().mean()
    decay = Watched.apply(critic[0].weight, "decay").square().sum()
    optimizer.step(real - fake - decay)
    assert optimizer.last_step.num_hvp == 6
    # A product goes back through the gradients' graph and then through that of the loss.
    assert visits["fake, product"] == 6
    assert visits["fake, first order"] == 1 + 6
    for name in ("real", "decay"):
        assert visits[f"{name}, first order"] == 1
        assert visits[f"{name}, product"] == 0
