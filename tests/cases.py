"""Small games as data, each known as a function of both players' tensors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

Loss = Callable[[list[Tensor], list[Tensor]], Tensor]


@dataclass
class Case:
    """A game: its loss as a function of the tensors, and where the players stand."""

    loss: Loss
    min_params: list[Tensor]
    max_params: list[Tensor]

    @property
    def players(self) -> dict[str, list[Tensor]]:
        """The parameters of both."""
        return {"min": self.min_params, "max": self.max_params}

    def __call__(self) -> Tensor:
        """Return the loss where the players stand."""
        return self.loss(self.min_params, self.max_params)


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


def _randn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def bilinear() -> Case:
    """Return x^T A y with players of unlike size, in two tensors each."""
    a = _randn(5, 3, seed=1)

    def loss(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        return torch.cat([x.reshape(-1) for x in xs]) @ a @ torch.cat(ys)

    return Case(
        loss,
        _leaves(_randn(2, 2, seed=2), _randn(1, seed=3)),
        _leaves(_randn(1, seed=4), _randn(2, seed=5)),
    )


def quadratic() -> Case:
    """Return x^T P x / 2 + x^T A y - y^T Q y / 2 + linear terms."""
    a, p, q = _randn(4, 6, seed=1), _randn(4, 4, seed=2), _randn(6, 6, seed=3)
    b, c = _randn(4, seed=4), _randn(6, seed=5)

    def loss(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        (x,), (y,) = xs, ys
        return x @ p @ p.T @ x / 2 + x @ a @ y - y @ q @ q.T @ y / 2 + b @ x + c @ y

    return Case(loss, _leaves(_randn(4, seed=6)), _leaves(_randn(6, seed=7)))


def scalar() -> Case:
    """Return a game of one number a player, with a 0-dim tensor."""

    def loss(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        return (2 * xs[0] * ys[0] + xs[0].sin() * ys[0] ** 2).sum()

    x, y = torch.tensor(0.3, dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)
    return Case(loss, _leaves(x), _leaves(y))


def no_interaction() -> Case:
    """Return a game without a mixed derivative."""

    def loss(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        return (xs[0] ** 2).sum() - (ys[0] ** 4).sum()

    return Case(loss, _leaves(_randn(3, seed=1)), _leaves(_randn(2, seed=2)))


def tied() -> Case:
    """Return a game in which each player uses one tensor twice."""
    data = _randn(6, 3, seed=3)

    def loss(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        (w,), (v,) = xs, ys
        fake = torch.tanh(torch.tanh(data @ w) @ w.T)
        return (torch.tanh(fake @ v) @ v.T).square().mean() - (data @ v).tanh().mean()

    return Case(loss, _leaves(_randn(3, 3, seed=1)), _leaves(_randn(3, 3, seed=2)))


def _network_case(generator: nn.Module, critic: nn.Module, loss_of: Callable) -> Case:
    names = [[name for name, _ in net.named_parameters()] for net in (generator, critic)]

    def loss(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
        params = [dict(zip(n, p, strict=True)) for n, p in zip(names, (xs, ys), strict=True)]
        return loss_of(
            lambda z: functional_call(generator, params[0], (z,)),
            lambda image: functional_call(critic, params[1], (image,)),
        )

    return Case(loss, list(generator.parameters()), list(critic.parameters()))


def mlp_gan() -> Case:
    """Return a zero-sum BCE GAN of two small networks."""
    torch.manual_seed(1)
    generator = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    critic = nn.Sequential(nn.Linear(2, 4), nn.Softplus(), nn.Linear(4, 1)).double()
    z, real = _randn(7, 2, seed=2), _randn(7, 2, seed=3) + 1

    def loss_of(generate: Callable, score: Callable) -> Tensor:
        bce = nn.functional.binary_cross_entropy_with_logits
        on_real, on_fake = score(real), score(generate(z))
        return -(bce(on_real, torch.ones_like(on_real)) + bce(on_fake, torch.zeros_like(on_fake)))

    return _network_case(generator, critic, loss_of)


class _Reshape(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 3, 4, 4)


def conv_gan(*, channels_last: bool = False) -> Case:
    """Return a convolutional WGAN with batch normalization; the last bias has no derivative."""
    torch.manual_seed(2)
    generator = nn.Sequential(
        nn.Linear(2, 48),
        _Reshape(),
        nn.ConvTranspose2d(3, 4, 2, stride=2),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.ReLU(),
        nn.Conv2d(4, 2, 3, padding=1),
        nn.Tanh(),
    ).double()
    critic = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2),
        nn.LeakyReLU(0.1),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Flatten(),
        nn.Linear(36, 1),
    ).double()
    if channels_last:
        generator.to(memory_format=torch.channels_last)
        critic.to(memory_format=torch.channels_last)
    z, real = _randn(4, 2, seed=4), _randn(4, 2, 8, 8, seed=5)

    def loss_of(generate: Callable, score: Callable) -> Tensor:
        return score(real).tanh().mean() - score(generate(z)).tanh().mean()

    return _network_case(generator, critic, loss_of)


def wgan() -> Case:
    """Return a plain WGAN, in which the critic's last bias has no mixed derivative."""
    torch.manual_seed(3)
    generator = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    critic = nn.Sequential(nn.Linear(2, 4), nn.LeakyReLU(0.1), nn.Linear(4, 1)).double()
    z, real = _randn(5, 2, seed=6), _randn(5, 2, seed=7)

    def loss_of(generate: Callable, score: Callable) -> Tensor:
        return score(real).mean() - score(generate(z)).mean()

    return _network_case(generator, critic, loss_of)


CASES: dict[str, Callable[[], Case]] = {
    "bilinear": bilinear,
    "quadratic": quadratic,
    "scalar": scalar,
    "no-interaction": no_interaction,
    "tied": tied,
    "mlp-gan": mlp_gan,
    "wgan": wgan,
    "conv-gan": conv_gan,
    "conv-gan-channels-last": lambda: conv_gan(channels_last=True),
}
