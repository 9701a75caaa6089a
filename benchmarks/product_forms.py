"""Cost and error of other ways to compute a mixed product than differentiating twice.

Run ``python -m benchmarks.product_forms``. One product in each direction, for the image networks:

- ``differentiated twice``: what compopt does, a backward pass through the kept graph of the
  gradients. Measured with both memory layouts of convolution weights.
- ``linearized``: forward over reverse by ``torch.func.linearize``, once per step, then applied.
- ``forward over reverse``: ``torch.func.jvp`` of the gradient, which recomputes the gradient.
- ``compiled``: reverse over reverse by ``torch.func``, in one region of ``torch.compile``, which
  recomputes loss and gradient.

All are timed in turn in one process, and compared with the product in double precision. Functional
transforms do not allow changes of buffers, so batch norms keep no running statistics here.
"""

import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, linearize, vjp
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.harness import arguments, clock, in_turns, show, write_result
from benchmarks.workloads import WORKLOADS, Play

Tensors = dict[str, Tensor]
LOSS_ARGUMENTS = {"min": 0, "max": 1}
SHOWN = ("set_up", "product", "compilation_s", "error")
seconds = clock()


@dataclass
class Form:
    """A way to compute a product.

    Attributes:
        name: its name in tables.
        set_up: seconds before the first product with a batch, in addition to the gradient's.
        product: returns the product, by parameter.
        compilation: seconds of the compilation, once for all batches of a shape.
    """

    name: str
    set_up: float
    product: Callable[[], Tensors]
    compilation: float = 0.0


class Direction:
    """Products in one player's parameter space, of a direction in the other's."""

    def __init__(
        self,
        play: Play,
        player: str,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        _keep_no_statistics(play.min_player)
        _keep_no_statistics(play.max_player)
        random = torch.Generator().manual_seed(0)
        networks = (play.min_player, play.max_player)
        self.networks = tuple(net.to(dtype=dtype, memory_format=layout) for net in networks)
        self.batch = tuple(part.to(dtype) for part in play.draw(random))
        self.params = tuple(_tensors(network) for network in self.networks)
        self.index = LOSS_ARGUMENTS[player]
        source = self.params[1 - self.index]
        drawn = {name: torch.randn(p.shape, generator=random) for name, p in source.items()}
        self.direction = {name: vector.to(dtype) for name, vector in drawn.items()}

    def loss(self, *params: Tensors) -> Tensor:
        """Return the Wasserstein loss as a function of both players' parameters."""
        (generator, critic), (real, noise) = self.networks, self.batch
        fake = functional_call(generator, params[0], (noise,))
        scores = [functional_call(critic, params[1], (images,)) for images in (real, fake)]
        return scores[0].mean() - scores[1].mean()

    def opposite_gradient(self, own: Tensors) -> Tensors:
        """Return the opponent's gradient as a function of the player's parameters."""
        params = [own, own]
        params[1 - self.index] = self.params[1 - self.index]
        return grad(self.loss, 1 - self.index)(*params)

    def gradient(self, opposite: Tensors) -> Tensors:
        """Return the player's gradient as a function of the opponent's parameters."""
        params = [opposite, opposite]
        params[self.index] = self.params[self.index]
        return grad(self.loss, self.index)(*params)

    def both_gradients(self) -> None:
        """Differentiate the loss once by all parameters, as Adam does."""
        self._graph(create_graph=False)

    def _graph(self, *, create_graph: bool) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        leaves = [{k: p.detach().requires_grad_() for k, p in own.items()} for own in self.params]
        every = [p for own in leaves for p in own.values()]
        grads = torch.autograd.grad(self.loss(*leaves), every, create_graph=create_graph)
        middle = len(leaves[0])
        return [list(own.values()) for own in leaves], [list(grads[:middle]), list(grads[middle:])]

    def twice(self) -> Form:
        """Return the form that differentiates the kept graph of the gradients."""
        plain = _usual_seconds(self.both_gradients)
        set_up = _usual_seconds(lambda: self._graph(create_graph=True)) - plain
        leaves, grads = self._graph(create_graph=True)
        pairs = zip(grads[1 - self.index], self.direction.values(), strict=True)
        outputs, weights = zip(*((g, w) for g, w in pairs if g.requires_grad), strict=True)
        own = leaves[self.index]

        def product() -> Tensors:
            found = torch.autograd.grad(
                outputs, own, weights, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            return dict(zip(self.params[self.index], found, strict=True))

        return Form("differentiated twice", max(set_up, 0.0), product)

    def linearized(self) -> Form:
        """Return the form that applies a linearization of the gradient."""
        opposite = self.params[1 - self.index]
        with warnings.catch_warnings():
            # torch warns of its own constant folding.
            warnings.filterwarnings("ignore", "Attempted to insert a get_attr Node")
            set_up = _usual_seconds(lambda: linearize(self.gradient, opposite))
            _, apply = linearize(self.gradient, opposite)
        return Form("linearized", set_up, lambda: apply(self.direction))

    def forward_over_reverse(self) -> Form:
        """Return the form that differentiates the gradient along the direction."""
        opposite = self.params[1 - self.index]
        return Form(
            "forward over reverse",
            0.0,
            lambda: jvp(self.gradient, (opposite,), (self.direction,))[1],
        )

    def compiled(self) -> Form:
        """Return the form that compiles loss, gradient and product."""

        def whole(own: Tensors, direction: Tensors) -> Tensors:
            _, pull = vjp(self.opposite_gradient, own)
            result: Tensors = pull(direction)[0]
            return result

        torch._dynamo.reset()
        function = torch.compile(whole, fullgraph=True)
        own = self.params[self.index]
        compilation = seconds(lambda: function(own, self.direction))
        return Form("compiled", 0.0, lambda: function(own, self.direction), compilation)


def _usual_seconds(function: Callable[[], object]) -> float:
    """Return the median time of three calls, so that one-time work does not count."""
    return statistics.median(seconds(function) for _ in range(3))


def _tensors(network: nn.Module) -> Tensors:
    return {name: param.detach() for name, param in network.named_parameters()}


def _keep_no_statistics(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None


def _flat(tensors: Tensors) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in tensors.values()])


def measure(build: Callable[[], Play], player: str, rounds: int, compiles: bool) -> list[dict]:
    """Return the figures of all forms, in units of one gradient of both players.

    Args:
        build: returns the game, with the same weights each time.
        player: the player in whose space the products lie.
        rounds: number of rounds for the medians.
        compiles: whether to measure the compiled form.
    """
    exact = _flat(Direction(build(), player, torch.float64).twice().product())
    direction = Direction(build(), player)
    channels_last = Direction(build(), player, layout=torch.channels_last).twice()
    channels_last.name += ", channels last"
    makers = [direction.linearized, direction.forward_over_reverse]
    makers += [direction.compiled] if compiles else []
    forms = [direction.twice(), channels_last, *(make() for make in makers)]
    errors = [float(torch.linalg.vector_norm(_flat(form.product()) - exact)) for form in forms]
    works = {"unit": direction.both_gradients, **{form.name: form.product for form in forms}}
    times = in_turns(works, rounds, what=f"products to the {player} player")
    unit, *taken = map(statistics.median, times.values())
    return [
        {
            "name": form.name,
            "set_up": form.set_up / unit,
            "product": median / unit,
            "compilation_s": form.compilation,
            "error": error / float(torch.linalg.vector_norm(exact)),
        }
        for form, median, error in zip(forms, taken, errors, strict=True)
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure, print tables, write a data file."""
    parser = arguments(__doc__, rounds=7)
    parser.add_argument("--workloads", nargs="+", default=["small", "dcgan"], choices=WORKLOADS)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--no-compiler", action="store_true", help="which needs minutes and C++")
    args = parser.parse_args(argv)
    measured: dict[str, dict] = {}
    for name in args.workloads:
        workload = WORKLOADS[name]
        measured[workload.name] = {}
        for player in LOSS_ARGUMENTS:
            build = partial(workload.start, args.batch_size)
            rows = measure(build, player, args.rounds, not args.no_compiler)
            measured[workload.name][player] = rows
            show(
                f"{workload.name}, products to the {player} player; one gradient of both = 1",
                ("form", "set-up", "product", "compilation, s", "error"),
                ((r["name"], *(f"{r[key]:.2g}" for key in SHOWN)) for r in rows),
            )
            data = {"rounds": args.rounds, "workloads": measured}
            write_result(args.out / "product_forms.json", data)


if __name__ == "__main__":
    main()
