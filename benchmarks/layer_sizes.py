"""Speedup of ``compopt.nn.fuse`` by layer and size, for a gradient and a product of a layer.

Run ``python -m benchmarks.layer_sizes``. Each layer takes inputs of several sizes: forward pass,
first backward pass with a graph, and second backward pass, in torch's form and in the fused one,
in turns. Above 1 the fused form is faster; layers that `fuse` does not replace by default are
marked.
"""

import copy
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.harness import RESULTS, arguments, in_turns, markdown_table, ratios, write_result
from compopt.nn import _layers, fuse

RESULT = RESULTS / "layer_sizes.json"

Shape = Callable[[int], tuple[int, ...]]
SIZES = (2**12, 2**14, 2**16, 2**17, 2**18, 2**19, 2**20)
CHANNELS = 64
IMAGES: Shape = lambda size: (size // (CHANNELS * 64), CHANNELS, 8, 8)  # noqa: E731
ROWS: Shape = lambda size: (size // CHANNELS, CHANNELS)  # noqa: E731
LAYERS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "BatchNorm2d": (lambda: nn.BatchNorm2d(CHANNELS), IMAGES),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(CHANNELS), ROWS),
    "BatchNorm2d and LeakyReLU": (
        lambda: nn.Sequential(nn.BatchNorm2d(CHANNELS), nn.LeakyReLU(0.2)),
        IMAGES,
    ),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(CHANNELS, affine=True), IMAGES),
    "LayerNorm": (lambda: nn.LayerNorm(CHANNELS), ROWS),
    "SiLU": (nn.SiLU, ROWS),
    "Softplus": (nn.Softplus, ROWS),
}
ACTIVATIONS = (nn.SiLU, nn.Softplus)


class Work:
    """A layer with an input, and its derivatives."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self.layer, self.x = layer, x.clone().requires_grad_()
        self.given = [self.x, *layer.parameters()]
        self.weight = torch.randn_like(x)
        self.vectors = [torch.randn_like(tensor) for tensor in self.given]

    def __call__(self) -> None:
        """Differentiate twice."""
        value = (self.layer(self.x) * self.weight).sum()
        grads = torch.autograd.grad(value, self.given, create_graph=True)
        # The gradient of a bias is constant and has no graph.
        kept = [index for index, grad in enumerate(grads) if grad.requires_grad]
        outputs, vectors = ([each[index] for index in kept] for each in (grads, self.vectors))
        torch.autograd.grad(outputs, self.given, vectors, allow_unused=True)


def measure(make: Callable[[], nn.Module], shape: tuple[int, ...], rounds: int) -> float:
    """Return the median of the paired ratios of torch's time over that of the fused form."""
    torch.manual_seed(0)
    plain, x = make(), torch.randn(shape)
    fused = copy.deepcopy(plain)
    fuse(fused)
    works: dict[str, Callable[[], None]] = {"torch": Work(plain, x), "fused": Work(fused, x)}
    # For small layers, each measurement makes many calls.
    count = max(1, 2**18 // x.numel())
    times = in_turns(
        {name: partial(_repeat, work, count) for name, work in works.items()},
        rounds,
        warm_up=2,
        what="rounds",
    )
    return statistics.median(ratios(times["torch"], times["fused"]))


def _repeat(work: Callable[[], None], count: int) -> None:
    for _ in range(count):
        work()


def is_left(name: str, size: int) -> bool:
    """Return True if `fuse` keeps torch's form of a layer of this size by default."""
    return LAYERS[name][0] in ACTIVATIONS and size < _layers.ACTIVATIONS_GAIN_FROM["cpu"]


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return the ratios by layer and size; in brackets where torch's form is used by default."""
    lines = []
    for name, row in rows.items():
        texts = {size: f"{value:.2f}" for size, value in row.items()}
        cells = [f"({text})" if is_left(name, int(size)) else text for size, text in texts.items()]
        lines.append([name, *cells])
    return markdown_table(["layer", *(f"{size:,} entries" for size in SIZES)], lines)


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write a data file."""
    parser = arguments(__doc__, rounds=21)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    # Measure closed forms of activations also below the size from which they are used.
    usual = dict(_layers.ACTIVATIONS_GAIN_FROM)
    _layers.ACTIVATIONS_GAIN_FROM.clear()
    try:
        rows = {
            name: {
                str(size): round(measure(make, shape(size), args.rounds), 3) for size in args.sizes
            }
            for name, (make, shape) in LAYERS.items()
        }
    finally:
        _layers.ACTIVATIONS_GAIN_FROM.update(usual)
    write_result(args.out / RESULT.name, {"rounds": args.rounds, "times_as_fast": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
