"""Networks of the published comparisons, and perceptrons."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn


def scaled(channels: int, width: float) -> int:
    """Return a number of channels times a width multiplier, at least one."""
    return max(1, round(channels * width))


class SmallGenerator(nn.Module):
    """The generator of the published small CIFAR-10 WGAN: 8,665,283 parameters.

    Args:
        latent_size: length of the noise vector.
        width: multiplies the channels of all hidden layers.

    References:
        Code beside Schäfer, Zheng and Anandkumar (2020). https://arxiv.org/abs/1910.05852
    """

    def __init__(self, latent_size: int = 128, *, width: float = 1.0) -> None:
        super().__init__()
        self.latent_size = latent_size
        hidden, first, second = (scaled(channels, width) for channels in (1024, 128, 64))
        self.fc = nn.Sequential(
            nn.Linear(latent_size, hidden),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, first * 8 * 8),
        )
        self.conv = nn.Sequential(
            nn.ConvTranspose2d(first, second, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(second),
            nn.ConvTranspose2d(second, 3, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return images [n, 3, 32, 32] in (-1, 1) for noise [n, latent_size]."""
        return self.conv(self.fc(z).unflatten(1, (-1, 8, 8)))


class SmallCritic(nn.Module):
    """The critic of the published small CIFAR-10 WGAN: 1,694,145 parameters.

    Args:
        last_bias: whether the last layer has a bias. In a Wasserstein loss its gradient is zero
            without a graph, which one of the public packages cannot handle.
        width: multiplies the channels of all hidden layers.
        dropout: probability of dropping the hidden layer's entries in training.
    """

    def __init__(self, *, last_bias: bool = True, width: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        first, second, hidden = (scaled(channels, width) for channels in (32, 64, 1024))
        self.layers = nn.Sequential(
            nn.Conv2d(3, first, 5),
            nn.LeakyReLU(0.01),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5),
            nn.LeakyReLU(0.01),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * 5 * 5, hidden),
            nn.LeakyReLU(0.01),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.Linear(hidden, 1, bias=last_bias),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [n, 1] of images [n, 3, 32, 32]."""
        return self.layers(images)


def perceptron(*sizes: int, activation: Callable[[], nn.Module] | None = None) -> nn.Sequential:
    """Return a multilayer perceptron of these widths with orthogonal initial weights.

    The activation is a leaky ReLU with slope 0.2 if None is given.
    """
    layers: list[nn.Module] = []
    for first, last in pairwise(sizes):
        linear = nn.Linear(first, last)
        nn.init.orthogonal_(linear.weight, gain=2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(0.2) if activation is None else activation()]
    return nn.Sequential(*layers[:-1])


def wasserstein_loss(
    generator: nn.Module, critic: nn.Module, images: Tensor, noise: Tensor
) -> Tensor:
    """Return the plain Wasserstein loss: the generator minimises it, the critic maximises it."""
    return critic(images).mean() - critic(generator(noise)).mean()


def num_parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(param.numel() for param in module.parameters())


def random_batch(
    batch_size: int, latent_size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw images [batch_size, 3, 32, 32] and noise [batch_size, latent_size]."""
    images = torch.rand(batch_size, 3, 32, 32, generator=generator) * 2 - 1
    return images, torch.randn(batch_size, latent_size, generator=generator)
