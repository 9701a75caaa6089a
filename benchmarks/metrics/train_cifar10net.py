"""Train a judge by the recipe of cifar10net_v1: ``python -m benchmarks.metrics.train_cifar10net``.

The result is an equal of the fixed weights (86.5 % of the test images right), not the same bits:
order of summation and random numbers differ between machines. So figures from it do not compare
with those of version 1, and the script does not write over that file. 20 minutes on one core.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from benchmarks.metrics.cifar10net import WEIGHTS, Cifar10Net, normalised
from benchmarks.metrics.labelled import load_labelled

BATCH_SIZE = 128
PEAK_LR = 0.2
PAD = 4


@dataclass(frozen=True)
class Trained:
    """A judge and how good it is.

    Attributes:
        net: in evaluation mode, its last layer scaled.
        scale: by which the last layer was multiplied, see `calibrated`.
        accuracy: share of the test images that it classifies rightly.
        cross_entropy: on the test images.
    """

    net: Cifar10Net
    scale: float
    accuracy: float
    cross_entropy: float


def augmented(images: Tensor, random: torch.Generator) -> Tensor:
    """Return images [n, 3, 32, 32] flipped by chance and shifted by up to 4 pixels."""
    n, _, height, width = images.shape
    flips = torch.rand(n, generator=random) < 0.5
    images = torch.where(flips[:, None, None, None], images.flip(3), images)
    padded = functional.pad(images, (PAD,) * 4, mode="reflect")
    top, left = torch.randint(0, 2 * PAD + 1, (2, n, 1), generator=random)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    index = torch.arange(n)[:, None, None, None], torch.arange(3)[:, None, None]
    return padded[(*index, rows[:, None, :, None], columns[:, None, None, :])]


@torch.no_grad()
def logits_of(net: Cifar10Net, images: Tensor, device: str) -> Tensor:
    """Return logits [n, 10] on the CPU for uint8 images."""
    parts = [net(normalised(batch.to(device))).cpu() for batch in images.split(500)]
    return torch.cat(parts)


def calibrated(logits: Tensor, labels: Tensor) -> float:
    """Return the scale of logits, to one decimal, with the least cross-entropy.

    Label smoothing flattens the probabilities, and with them every classifier score.
    """
    scales = [step / 10 for step in range(5, 31)]
    losses = [float(functional.cross_entropy(scale * logits, labels)) for scale in scales]
    return scales[losses.index(min(losses))]


def train(
    splits: dict[str, tuple[Tensor, Tensor]], *, steps: int, seed: int = 0, device: str = "cpu"
) -> Trained:
    """Return a judge trained from scratch.

    SGD with momentum 0.9 and weight decay 5e-4, a learning rate that rises to 0.2 over a fifth of
    the steps and falls to zero, label smoothing 0.1, random crops and flips.

    Args:
        splits: "train" and "test", uint8 images [n, 3, 32, 32] and labels [n].
        steps: of 128 images each.
        seed: of initialisation, order and augmentation. Sets the global seed.
        device: to train on.

    Raises:
        ValueError: if ``steps`` is not positive.
    """
    if steps < 1:
        raise ValueError(f"`steps` must be positive, got {steps}.")
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    net = Cifar10Net().to(device).train()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=PEAK_LR, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    rise = max(steps // 5, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, max(steps - step, 0) / (steps - rise + 1))
    )
    images, labels = splits["train"]
    order = torch.empty(0, dtype=torch.int64)
    for _ in track(range(steps), description="training"):
        if len(order) < BATCH_SIZE:
            order = torch.cat([order, torch.randperm(len(images), generator=random)])
        rows, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        batch = normalised(augmented(images[rows], random).to(device))
        loss = functional.cross_entropy(net(batch), labels[rows].to(device), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    test_images, test_labels = splits["test"]
    logits = logits_of(net, test_images, device)
    scale = calibrated(logits, test_labels)
    with torch.no_grad():
        net.fc.weight.mul_(scale)
        net.fc.bias.mul_(scale)
    return Trained(
        net=net.cpu(),
        scale=scale,
        accuracy=float((logits.argmax(1) == test_labels).double().mean()),
        cross_entropy=float(functional.cross_entropy(scale * logits, test_labels)),
    )


def main(argv: list[str] | None = None) -> None:
    """Train and write a half-precision state dict."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.metrics.train_cifar10net", description=__doc__
    )
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 (default: COMPOPT_DATA)")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--steps", type=int, default=3790, help="3790 are 9.7 epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    if args.out.resolve() == WEIGHTS.resolve():
        parser.error("--out must not be the fixed weights: figures from others do not compare")
    trained = train(load_labelled(args.data), steps=args.steps, seed=args.seed, device=args.device)
    state = trained.net.state_dict()
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(half, args.out)
    Console().print(
        f"{args.out}: {trained.accuracy:.1%} of the test images right, cross-entropy "
        f"{trained.cross_entropy:.3f}, last layer scaled by {trained.scale:.1f}."
    )


if __name__ == "__main__":
    main()
