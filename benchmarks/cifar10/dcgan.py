"""The DCGAN pair of the published comparisons."""

import itertools

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

    multiples: tuple[int, ...] = (4, 2, 1)
    """Channels of each layer's input in units of 64; a layer doubles the 4 pixels at the start."""

    def __init__(self, latent_size: int = 128, *, width: float = 1.0) -> None:
        super().__init__()
        self.latent_size = latent_size
        dims = [scaled(CHANNELS, width) * multiple for multiple in self.multiples]
        first = 16 * dims[0]
        self.fc = nn.Sequential(nn.Linear(latent_size, first), nn.BatchNorm1d(first), nn.ReLU())
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(dims):
            layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
        last = nn.ConvTranspose2d(dims[-1], 3, 4, stride=2, padding=1)
        self.conv = nn.Sequential(*layers, last, nn.Tanh())
        _initialize(self, width)

    def forward(self, z: Tensor) -> Tensor:
        """Return images [n, 3, size, size] in (-1, 1) for noise [n, latent_size]."""
        return self.conv(self.fc(z).unflatten(1, (-1, 4, 4)))


class Critic(nn.Module):
    """Three strided convolutions, no normalization: 662,977 parameters at width 1.

    Args:
        width: multiplies the 64, 128 and 256 channels.
        dropout: probability of dropping a whole channel, after each convolution.
    """

    multiples: tuple[int, ...] = (1, 2, 4)
    """Channels of each layer's output in units of 64; a layer halves the image."""

    def __init__(self, *, width: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        dims = [scaled(CHANNELS, width) * multiple for multiple in self.multiples]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise((3, *dims)):
            layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
            layers += [nn.Dropout2d(dropout)] if dropout else []
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * dims[-1], 1))
        _initialize(self, width)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [n, 1] of images [n, 3, size, size]."""
        return self.layers(images)


class Generator16(Generator):
    """The generator without its first layer, for images of 16 pixels."""

    multiples = (2, 1)


class Critic16(Critic):
    """The critic without its last layer, for images of 16 pixels."""

    multiples = (1, 2)


def _initialize(module: nn.Module, width: float) -> None:
    """Draw convolution weights from N(0, 0.01^2), others by the defaults, as published.

    The standard deviation is divided by the root of the width: a narrower layer sums fewer terms,
    and initial signals should be as strong as in the published network.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            std = WEIGHT_STD if layer.in_channels == 3 else WEIGHT_STD / width**0.5
            nn.init.normal_(layer.weight, 0.0, std)
