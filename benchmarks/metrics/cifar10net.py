"""A small CIFAR-10 classifier with fixed weights, which judges images offline.

Distances on its features are not the FID and scores of its probabilities are not the IS: they
compare only with figures from the same file of weights. The weights are never replaced; a better
network becomes a v2 beside this one.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.metrics.weights import verified

WEIGHTS = Path(__file__).parent / "weights" / "cifar10net-v1.pt"
SHA256 = "ec10c506df81b071d327ba6e774cffe211ce788b8f9d499f8d160a798ead0ec2"
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    # The attributes are named as in the file of weights.
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = _block(channels, channels), _block(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x))


class Cifar10Net(nn.Module):
    """The ResNet-9 layout at a quarter of its width: 16-32-64-128 channels, 0.49 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(
            _block(3, 16),
            _block(16, 32, 2),
            _Residual(32),
            _block(32, 64, 2),
            _Residual(64),
            _block(64, 128, 2),
            _Residual(128),
        )
        self.fc = nn.Linear(128, 10)

    def features(self, x: Tensor) -> Tensor:
        """Return the global averages [n, 128] of the last layer for normalised images."""
        return self.f(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [n, 10] for normalised images [n, 3, 32, 32]."""
        return self.fc(self.features(x))


def normalised(images: Tensor) -> Tensor:
    """Return what the network takes, float32, for images [n, 3, 32, 32] uint8."""
    mean, std = (torch.tensor(part, device=images.device).view(3, 1, 1) for part in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def load_cifar10net(path: Path = WEIGHTS) -> Cifar10Net:
    """Return the network with its fixed weights, in evaluation mode and without gradients.

    Raises:
        ValueError: if the file's SHA-256 is not that of version 1.
    """
    state = torch.load(verified(path, SHA256), map_location="cpu", weights_only=True)
    net = Cifar10Net()
    # Stored in half precision.
    net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    return net.eval().requires_grad_(False)
