"""The residual pair of the spectral normalization paper, for 32x32 images."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import scaled


def _conv(inputs: int, outputs: int, kernel_size: int, gain: float) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2)
    nn.init.xavier_uniform_(conv.weight, gain)
    nn.init.zeros_(conv.bias)
    return conv


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _halved(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2)


class _Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))
        self.convs = nn.ModuleList(_conv(channels, channels, 3, 2**0.5) for _ in range(2))
        self.shortcut = _conv(channels, channels, 1, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs[0](_doubled(torch.relu(self.norms[0](x))))
        y = self.convs[1](torch.relu(self.norms[1](y)))
        return y + self.shortcut(_doubled(x))


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, first: bool = False, halve: bool) -> None:
        super().__init__()
        self.first, self.halve = first, halve
        self.convs = nn.ModuleList([_conv(inputs, outputs, 3, 2**0.5)])
        self.convs.append(_conv(outputs, outputs, 3, 2**0.5))
        self.shortcut = _conv(inputs, outputs, 1, 1.0) if first or halve else None

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.first else torch.relu(x)
        y = self.convs[1](torch.relu(self.convs[0](y)))
        y = _halved(y) if self.halve else y
        if self.shortcut is None:
            return x + y
        # The first block pools before its 1x1 convolution: the same result with less work.
        if self.first:
            return y + self.shortcut(_halved(x))
        return y + _halved(self.shortcut(x))


class Generator(nn.Module):
    """Three residual blocks that double the size: 4,276,739 parameters at width 1.

    Args:
        latent_size: length of the noise vector.
        width: multiplies the 256 channels.

    References:
        Miyato et al. (2018), Table 4. https://arxiv.org/abs/1802.05957
    """

    def __init__(self, latent_size: int = 128, *, width: float = 1.0) -> None:
        super().__init__()
        self.latent_size = latent_size
        channels = scaled(256, width)
        self.fc = _linear(latent_size, 16 * channels)
        self.blocks = nn.Sequential(*(_Up(channels) for _ in range(3)))
        self.norm = nn.BatchNorm2d(channels)
        self.last = _conv(channels, 3, 3, 1.0)

    def forward(self, z: Tensor) -> Tensor:
        """Return images [n, 3, 32, 32] in (-1, 1) for noise [n, latent_size]."""
        x = self.blocks(self.fc(z).unflatten(1, (-1, 4, 4)))
        return torch.tanh(self.last(torch.relu(self.norm(x))))


class Critic(nn.Module):
    """Four residual blocks and a sum over positions: 1,053,825 parameters at width 1.

    Args:
        width: multiplies the 128 channels.
        dropout: probability of dropping a whole channel, after each block.
    """

    def __init__(self, *, width: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        channels = scaled(128, width)
        blocks = [
            _Down(3, channels, first=True, halve=True),
            _Down(channels, channels, halve=True),
            _Down(channels, channels, halve=False),
            _Down(channels, channels, halve=False),
        ]
        layers = [[block, nn.Dropout2d(dropout)] if dropout else [block] for block in blocks]
        self.blocks = nn.Sequential(*(layer for pair in layers for layer in pair))
        self.last = _linear(channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [n, 1] of images [n, 3, 32, 32]."""
        return self.last(torch.relu(self.blocks(images)).sum(dim=(2, 3)))
