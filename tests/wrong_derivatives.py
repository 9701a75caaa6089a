"""Layers whose derivatives are wrong, and small networks to plant them in."""

import torch
from torch import Tensor, nn

from benchmarks.cifar10 import dcgan, resnet


def wrong(forward, backward):
    """Return a custom function of one tensor as a function; both get the context."""
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type("Wrong", (torch.autograd.Function,), methods).apply


def _saved(function):
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return function(x)

    return forward


def _keeps_intermediate(ctx, x):
    ctx.slope = 1 + 0.6 * x
    return x + 0.3 * x.square()


def _keeps_output(ctx, x):
    ctx.y = x.tanh()
    return ctx.y.clone()


def _hooked(x: Tensor) -> Tensor:
    y = x.tanh()
    if y.requires_grad:
        y.register_hook(lambda grad: 0.9 * grad)
    return y


class _Second(torch.autograd.Function):
    """The backward pass of x + x^3; the derivative of its own backward is wrong."""

    @staticmethod
    def forward(ctx, grad, x):
        ctx.save_for_backward(grad, x)
        ctx.bend = 6 * x
        return grad * (1 + 3 * x.square())

    @staticmethod
    def backward(ctx, v):
        grad, x = ctx.saved_tensors
        return v * (1 + 3 * x.square()), v * grad * ctx.bend


class Stale(nn.Module):
    """Bends its input; its backward takes the mean of the call before for the input."""

    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        last = self.last.clone()
        self.last.copy_(x.detach().mean())
        return wrong(lambda ctx, x: x + 0.3 * x.square(), lambda ctx, g: g * (1 + 0.6 * last))(x)


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


FUNCTIONS = {
    "sign": wrong(_saved(torch.cos), lambda ctx, g: g * ctx.saved_tensors[0].sin()),
    "factor": wrong(lambda ctx, x: x.clone(), lambda ctx, g: 0.9 * g),
    "missing term": wrong(
        _saved(lambda x: x * x.sigmoid()), lambda ctx, g: g * ctx.saved_tensors[0].sigmoid()
    ),
    "saved intermediate": wrong(_keeps_intermediate, lambda ctx, g: g * ctx.slope),
    "saved output": wrong(_keeps_output, lambda ctx, g: g * (1 - ctx.y.square())),
    "detached part": lambda x: x * x.detach().sigmoid(),
    "hook": _hooked,
    "reversal": wrong(lambda ctx, x: x.clone(), lambda ctx, g: -g),
    "third derivative": wrong(
        _saved(lambda x: x + x**3), lambda ctx, g: _Second.apply(g, *ctx.saved_tensors)
    ),
}
KINDS = (*FUNCTIONS, "stale buffer")
ORDERS = {"saved intermediate": 2, "saved output": 2, "third derivative": 3}
"""Of the lowest derivative that is wrong, 1 if not listed."""
PLACES = ("generator", "critic", "between")


def wrong_layer(kind: str) -> nn.Module:
    return Stale() if kind == "stale buffer" else Layer(FUNCTIONS[kind])


def mlp() -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4))
    return generator, nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def small_dcgan(width: float = 1 / 16) -> tuple[nn.Module, nn.Module]:
    networks = dcgan.Generator16(3, width=width), dcgan.Critic16(width=width)
    # The published initial weights are so small that no layer bends what passes it.
    for network in networks:
        for param in network.parameters():
            if param.dim() > 2:
                nn.init.xavier_normal_(param)
    return networks


def small_resnet(width: float = 1 / 64) -> tuple[nn.Module, nn.Module]:
    return resnet.Generator(3, width=width), resnet.Critic(width=2 * width)


NETWORKS = {"MLP": mlp, "DCGAN": small_dcgan, "residual": small_resnet}


def plant(generator: nn.Module, critic: nn.Module, layer: nn.Module, place: str) -> None:
    """Put ``layer`` behind the first layer of a network."""
    network = generator if place == "generator" else critic
    # The first module that holds something and is called as a whole.
    first = next(
        name
        for name, child in network.named_children()
        if next(child.parameters(), None) is not None
    )
    child = getattr(network, first)
    if isinstance(child, nn.Sequential):
        child[0] = nn.Sequential(child[0], layer)
    else:
        setattr(network, first, nn.Sequential(child, layer))


def slope(value: Tensor, noise: Tensor, order: int) -> Tensor:
    """Return the derivative of ``order`` of a value along the diagonal of the noise.

    Samples count differently, because a batch normalization does not see what all have in common.
    """
    weights = torch.arange(1.0, 1 + len(noise)).unsqueeze(1).to(value.dtype) / len(noise)
    for _ in range(order):
        (grad,) = torch.autograd.grad((weights * value).sum(), noise, create_graph=True)
        value = grad.sum(1, keepdim=True)
    return value


def needed_order(kind: str, place: str) -> int:
    """Return the order of a derivative in the loss with which a mixed product meets the fault.

    A product differentiates the critic twice, but what lies before it once.
    """
    return max(0, ORDERS.get(kind, 1) - (2 if place == "critic" else 1))
