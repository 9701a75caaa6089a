"""Games with a module under test deep inside of a player, and the verdict on them."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from compopt.diagnosis import PreflightError, PreflightReport, preflight

WIDTH = 4


class Layer(nn.Module):
    """A module made of a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Critic(nn.Module):
    """A critic whose ``encoder`` holds the module under test, two levels deep."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.entry = nn.Linear(WIDTH, WIDTH)
        self.encoder = nn.Sequential(nn.Tanh(), module)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, x):
        return self.head(self.encoder(self.entry(x))).square()


def generator() -> nn.Module:
    return nn.Sequential(nn.Linear(2, WIDTH), nn.Tanh())


def play(module: nn.Module):
    """Return the loss function and the players of a game with ``module`` inside of the critic."""
    min_player, max_player = generator(), Critic(module)
    z = torch.randn(6, 2)
    return (lambda: max_player(min_player(z)).mean()), min_player, max_player


def healthy(module: nn.Module) -> PreflightReport:
    report = preflight(*play(module))
    assert report.interacts
    return report


def trouble(module: nn.Module) -> str:
    with pytest.raises(PreflightError) as raised:
        preflight(*play(module))
    return str(raised.value)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, 2)

    def forward(self, x):
        return self.attn(x, x, x, need_weights=False)[0]


class Identity(torch.autograd.Function):
    """An identity function, to be given a backward."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].exp()


def overwrite(x: Tensor) -> Tensor:
    out = x.sigmoid()
    return out * 2 + out.add_(1)


def reentrant(x: Tensor) -> Tensor:
    return checkpoint(torch.sin, x, use_reentrant=True)
