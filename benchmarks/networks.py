"""Networks of the published comparisons."""

import torch
from torch import Tensor, nn


class SmallGenerator(nn.Module):
    """The generator of the published small CIFAR-10 WGAN: 8,665,283 parameters.

    Args:
        latent_size: length of the noise vector.

    References:
        Code beside Schäfer, Zheng and Anandkumar (2020). https://arxiv.org/abs/1910.05852
    """

    def __init__(self, latent_size: int = 128) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.fc = nn.Sequential(
            nn.Linear(latent_size, 1024),
            nn.ReLU(),
            nn.BatchNorm1d(1024),
            nn.Linear(1024, 128 * 8 * 8),
        )
        self.conv = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(64),
            nn.ConvTranspose2d(64, 3, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return images [n, 3, 32, 32] in (-1, 1) for noise [n, latent_size]."""
        return self.conv(self.fc(z).view(-1, 128, 8, 8))


class SmallCritic(nn.Module):
    """The critic of the published small CIFAR-10 WGAN: 1,694,145 parameters.

    Args:
        last_bias: whether the last layer has a bias. In a Wasserstein loss that bias has no
            derivative at all, which one of the public packages cannot handle.
    """

    def __init__(self, *, last_bias: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 32, 5),
            nn.LeakyReLU(0.01),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5),
            nn.LeakyReLU(0.01),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 5 * 5, 1024),
            nn.LeakyReLU(0.01),
            nn.Linear(1024, 1, bias=last_bias),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [n, 1] of images [n, 3, 32, 32]."""
        return self.layers(images)


def wasserstein_loss(
    generator: nn.Module, critic: nn.Module, images: Tensor, noise: Tensor
) -> Tensor:
    """Return the plain Wasserstein loss: the generator lowers it, the critic raises it."""
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
