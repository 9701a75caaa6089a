"""A step traced into one graph, and compiled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from compopt._typing import Player
from compopt.compiled.trees import Tree
from compopt.compiled.twin import StateKey, twin_of
from compopt.game import Terms
from compopt.optim.report import StepReport
from compopt.optim.two_player import TwoPlayerCompetitive

CLOSED_OVER = (
    "`loss_fn` uses a tensor that is neither among its inputs nor a parameter or buffer of the "
    "networks: a program would use its present value in every step. Pass tensors that change "
    "between steps as inputs, `step(real, noise)`, and register constants as buffers "
    "(`register_buffer`)."
)
DATA_DEPENDENT = (
    "`loss_fn` reads a value of a tensor (`float()`, `.item()`, an `if` on a tensor), which a "
    'program cannot follow. Use `torch.where`, or compile with `mode="eager"`.'
)
GENERATOR = (
    "`loss_fn` draws from a `torch.Generator` of its own, which a program cannot advance. Draw "
    "before the step and pass the numbers as an input, or draw from the default generator."
)
GROWN = (
    "`loss_fn` changed the buffer `{name}` from {old} to {new}, so the next step would need "
    'another program. Keep its shape and dtype, or compile with `mode="eager"`.'
)


class LossModule(nn.Module):
    """A loss function with its networks, so that all their tensors can be replaced at once."""

    def __init__(self, loss_fn: Callable[..., Any], networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.loss_fn = loss_fn
        self.networks = nn.ModuleList(networks)

    def forward(self, *inputs: Any) -> Any:
        """Return the loss."""
        return self.loss_fn(*self.networks, *inputs)


@dataclass(frozen=True)
class Arguments:
    """The arguments of a program.

    Attributes:
        params: the trainable parameters of both players.
        vectors: the state vectors, by player and name.
        others: buffers and further parameters of the networks, by name.
        numbers: [c + g] float64, the distinct step counts and the learning rates of the groups.
        inputs: the tensors among the inputs of the loss.
    """

    params: list[Tensor]
    vectors: dict[StateKey, Tensor]
    others: dict[str, Tensor]
    numbers: Tensor
    inputs: list[Tensor]

    def flat(self) -> list[Tensor]:
        """Return all tensors in order."""
        return [
            *self.params,
            *self.vectors.values(),
            *self.others.values(),
            self.numbers,
            *self.inputs,
        ]


@dataclass(frozen=True)
class Layout:
    """How a program interprets its arguments.

    Attributes:
        names: the names of ``Arguments.params`` in the networks.
        count_of: for each parameter, the index of its step count in ``Arguments.numbers``.
        num_counts: the number of distinct step counts.
        solved: the player whose move is solved for.
        inputs: the nesting of the inputs, and those that are not tensors.
    """

    names: Sequence[str]
    count_of: Sequence[int]
    num_counts: int
    solved: Player
    inputs: Tree


@dataclass(frozen=True)
class Outcome:
    """The results of a program: new values, and the figures of the step.

    Attributes:
        params: new values; the old ones if no step is taken.
        vectors: new state vectors, likewise.
        others: buffers and further parameters, whether or not a step is taken.
        figures: float64, 1 if the step or its fallback is taken, then the report's tensors.
        losses: the detached losses.
    """

    params: list[Tensor]
    vectors: list[Tensor]
    others: list[Tensor]
    figures: Tensor
    losses: list[Tensor]


class Program:
    """A step of an optimizer as one compiled function without side effects.

    Args:
        optimizer: the optimizer.
        module: the loss function with its networks.
        arguments: example arguments.
        layout: how to interpret the arguments.
        backend: a backend of ``torch.compile``.

    Attributes:
        changed: names of the buffers that a step changes.
    """

    def __init__(
        self,
        optimizer: TwoPlayerCompetitive,
        module: LossModule,
        arguments: Arguments,
        layout: Layout,
        backend: str | Callable[..., Any],
    ) -> None:
        self._optimizer = optimizer
        self._module = module
        self._layout = layout
        self._params = arguments.params
        self._names = list(arguments.vectors), list(arguments.others)
        self.changed: set[str] = set()
        graph = _traced(self._step, arguments.flat())
        self._drop_unchanged(graph)
        self._call = _compiled(graph, arguments.flat(), backend)

    def __call__(self, arguments: Arguments) -> Outcome:
        """Return the outcome of a step from ``arguments``, which are not modified."""
        return self._outcome(self._call(*arguments.flat()))

    def _outcome(self, tensors: Sequence[Any]) -> Outcome:
        num_vectors, num_others = (len(names) for names in self._names)
        ends = list(accumulate([len(self._params), num_vectors, num_others]))
        params, vectors, others = (
            list(tensors[start:end]) for start, end in zip([0, *ends], ends, strict=False)
        )
        return Outcome(params, vectors, others, tensors[ends[-1]], list(tensors[ends[-1] + 1 :]))

    def report(self, figures: Tensor) -> StepReport[Player]:
        """Return the report of a step from the figures of its outcome."""
        return StepReport(**self._report.filled(figures.unbind()[1:]))

    def _step(self, *tensors: Tensor) -> list[Tensor]:
        """Take a step of a twin on copies; return the tensors of an :class:`Outcome`."""
        layout, (keys, names) = self._layout, self._names
        remaining = iter(tensors)
        leaves = [next(remaining).detach().clone().requires_grad_() for _ in self._params]
        vectors = {key: next(remaining).clone() for key in keys}
        others = {name: next(remaining).detach().clone() for name in names}
        numbers = next(remaining).unbind()
        twin = twin_of(
            self._optimizer,
            dict(zip(self._params, leaves, strict=True)),
            [numbers[place] for place in layout.count_of],
            numbers[layout.num_counts :],
            vectors,
            layout.solved,
        )
        replaced = {**dict(zip(layout.names, leaves, strict=True)), **others}
        inputs = layout.inputs.filled(remaining)
        losses = twin._step(lambda: functional_call(self._module, replaced, inputs), Terms())
        # `functional_call` puts buffers that a module reassigns into the dictionary.
        for name, old in others.items():
            _check_like(name, old, replaced[name])
            if replaced[name] is not old or old._version:
                self.changed.add(name)
        reported, self._report = Tree.of(vars(twin.last_step))
        assert isinstance(twin._is_taken, Tensor)
        figures = [figure.reshape(()).double() for figure in (twin._is_taken, *reported)]
        return [
            *(leaf.detach() for leaf in leaves),
            *vectors.values(),
            *(replaced[name].detach() for name in names),
            torch.stack(figures),
            *(losses if isinstance(losses, tuple) else [losses]),
        ]

    def _drop_unchanged(self, graph: GraphModule) -> None:
        """Let the graph return the given tensors in place of buffers that do not change."""
        nodes = graph.graph.nodes
        given = [node for node in nodes if node.op == "placeholder"]
        output = next(node for node in nodes if node.op == "output")
        returned = list(output.args[0])
        first = len(self._params) + len(self._names[0])
        for place, name in enumerate(self._names[1], first):
            # Batch normalization does not increase the version of its statistics.
            if any("batch_norm" in str(use.target) for use in _uses(given[place])):
                self.changed.add(name)
            if name not in self.changed:
                returned[place] = given[place]
        output.args = (returned,)
        graph.recompile()


def _traced(step: Callable[..., Any], arguments: Sequence[Tensor]) -> GraphModule:
    """Return a function as a graph of tensor operations, traced without computing values."""
    try:
        graph = make_fx(step, tracing_mode="fake")(*arguments)
    except Exception as error:
        remedy = next((text for sign, text in _REMEDIES if sign in f"{type(error)} {error}"), None)
        if remedy is None:
            raise
        raise RuntimeError(remedy) from error
    if any(node.kwargs.get("generator") is not None for node in graph.graph.nodes):
        raise RuntimeError(GENERATOR)
    return graph


_REMEDIES = [
    ("Please convert all Tensors to FakeTensors first", CLOSED_OVER),
    ("GuardOnDataDependentSymNode", DATA_DEPENDENT),
    ("DataDependentOutputException", DATA_DEPENDENT),
]


def _compiled(
    graph: GraphModule, tensors: list[Tensor], backend: str | Callable[..., Any]
) -> Callable[..., Any]:
    """Return a graph compiled by a backend of ``torch.compile``.

    The backend is called directly: ``torch.compile`` would trace the graph again and check guards
    in each step.
    """
    if backend == "inductor":
        # With launches from C++ a small step takes two thirds of the time.
        options = {"cpp_wrapper": True}
        compiled: Callable[..., Any] = torch._inductor.compile(graph, [*tensors], options=options)
        return compiled
    if isinstance(backend, str):
        backend = torch._dynamo.lookup_backend(backend)
    called: Callable[..., Any] = backend(graph, tensors)
    return called


def _check_like(name: str, old: Tensor, new: Tensor) -> None:
    kinds = [f"{t.dtype} of shape {tuple(t.shape)}" for t in (old, new)]
    if kinds[0] != kinds[1]:
        raise ValueError(GROWN.format(name=name, old=kinds[0], new=kinds[1]))


_COPIES = (torch.ops.aten.detach.default, torch.ops.aten.clone.default)


def _uses(node: Node) -> list[Node]:
    """Return the operations on a tensor and on its copies."""
    found: list[Node] = []
    for user in node.users:
        found += [user, *(_uses(user) if user.target in _COPIES else [])]
    return found
