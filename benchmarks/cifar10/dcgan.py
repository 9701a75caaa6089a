"""The DCGAN pair of the published comparisons."""

from torch import Tensor, nn

from benchmarks.networks import scaled

CHANNELS = 64
WEIGHT_STD = 0.01


class Generator(nn.Module):
    """Three transposed convolutions with batch normalization: 1,195,587 parameters at width 1.

    Args:
        latent_size: length of the noise vector.
        width: multiplies the 64, 128 and 256 channels.

    References:
        Code beside Schäfer, Zheng and Anandkumar (2020). https://arxiv.org/abs/1910.05852
    """

    def __init__(self, latent_size: int = 128, *, width: float = 1.0) -> None:
        super().__init__()
        self.latent_size = latent_size
        dim = scaled(CHANNELS, width)
        self.fc = nn.Sequential(
            nn.Linear(latent_size, 16 * 4 * dim), nn.BatchNorm1d(16 * 4 * dim), nn.ReLU()
        )
        self.conv = nn.Sequential(
            nn.ConvTranspose2d(4 * dim, 2 * dim, 4, stride=2, padding=1),
            nn.BatchNorm2d(2 * dim),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * dim, dim, 4, stride=2, padding=1),
            nn.BatchNorm2d(dim),
            nn.ReLU(),
            nn.ConvTranspose2d(dim, 3, 4, stride=2, padding=1),
            nn.Tanh(),
        )
        _initialize(self, width)

    def forward(self, z: Tensor) -> Tensor:
        """Return images [n, 3, 32, 32] in (-1, 1) for noise [n, latent_size]."""
        return self.conv(self.fc(z).unflatten(1, (-1, 4, 4)))


class Critic(nn.Module):
    """Three strided convolutions, no normalization: 662,977 parameters at width 1.

    Args:
        width: multiplies the 64, 128 and 256 channels.
        dropout: probability of dropping a whole channel, after each convolution.
    """

    def __init__(self, *, width: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        dim = scaled(CHANNELS, width)
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, dim), (dim, 2 * dim), (2 * dim, 4 * dim)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
            layers += [nn.Dropout2d(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 4 * dim, 1))
        _initialize(self, width)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [n, 1] of images [n, 3, 32, 32]."""
        return self.layers(images)


def _initialize(module: nn.Module, width: float) -> None:
    """Draw convolutions from N(0, 0.01^2), the rest by the defaults, as published.

    A narrower layer sums fewer terms. Its standard deviation is divided by the root of the width,
    so that signals start as strong as in the published network.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            std = WEIGHT_STD if layer.in_channels == 3 else WEIGHT_STD / width**0.5
            nn.init.normal_(layer.weight, 0.0, std)
