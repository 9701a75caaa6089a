"""Steps as device graphs: the eager step, captured once and replayed."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compopt.compiled.bound import BoundTensors
from compopt.compiled.checks import check_graph, check_inputs
from compopt.compiled.program import LossModule
from compopt.compiled.step import CompiledStep, Losses
from compopt.compiled.terms import Terms, terms_of
from compopt.compiled.trees import Tree
from compopt.optim.two_player import TwoPlayerCompetitive

WARM_UP = 3
"""Steps before a capture, in which torch and the kernels load and allocate what they need."""


class DeviceGraph:
    """The device operations of a function, captured without running them."""

    def __init__(self, function: Callable[[], object], device: torch.device) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(self._graph):
            function()

    def replay(self) -> None:
        """Run the operations, on the current stream of the device."""
        self._graph.replay()


def on_side_stream(function: Callable[[], Any], device: torch.device) -> Any:
    """Return the result of a function run on a side stream, as torch asks before a capture."""
    with torch.cuda.device(device):
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            result = function()
        torch.cuda.current_stream(device).wait_stream(stream)
    return result


class GraphStep(CompiledStep):
    """The step as a device graph.

    The first steps are eager. The graph reads and writes fixed addresses: if parameters, state,
    buffers or learning rates are replaced, as by loading a state dict, or if the shape of an input
    changes, the graph is captured again, after the same number of eager steps.
    """

    mode = "graph"

    def __init__(
        self,
        optimizer: TwoPlayerCompetitive,
        loss_fn: Callable[..., Any],
        networks: Sequence[nn.Module],
    ) -> None:
        super().__init__(optimizer, loss_fn, networks)
        check_graph(optimizer)
        self._module = LossModule(loss_fn, networks)
        self._bound = BoundTensors(optimizer, self._module)
        self._restart(None, [])

    def _restart(self, terms: Terms | None, memory: list[Tensor]) -> None:
        self._terms, self._memory = terms, memory
        self._addresses = [tensor.data_ptr() for tensor in memory]
        self._num_steps = 0
        self._graph: DeviceGraph | None = None
        self._inputs: list[Tensor] = []
        self._losses: Losses | None = None

    def __call__(self, *inputs: Any) -> Losses:
        """Take one step."""
        optimizer = self.optimizer
        check_graph(optimizer)
        if not self._bound.are_current():
            self._bound = BoundTensors(optimizer, self._module)
        tensors, tree = Tree.of(inputs)
        check_inputs(tree.leaves)
        device = self._bound.params[0].device
        terms = terms_of(optimizer, self._bound, tensors, tree, device.type)
        if terms != self._terms or not self._are_where_they_were():
            self._restart(terms, self._used_memory())
        if self._num_steps < WARM_UP:
            losses: Losses = on_side_stream(lambda: self._eager_step(inputs), device)
            self._num_steps += 1
            # The first step creates the state.
            memory = self._used_memory()
            self._memory, self._addresses = memory, [tensor.data_ptr() for tensor in memory]
            return losses
        if self._graph is None:
            self._inputs = [tensor.clone() for tensor in tensors]
            captured = tree.filled(self._inputs)
            self._graph = DeviceGraph(lambda: self._keep(self._eager_step(captured)), device)
        if tensors:
            torch._foreach_copy_(self._inputs, tensors)
        self._graph.replay()
        optimizer._pending = None
        optimizer._opt_called = True  # type: ignore[attr-defined]
        optimizer.last_step = self._report
        assert self._losses is not None
        # Clone: the next replay overwrites these.
        if isinstance(self._losses, tuple):
            return self._losses[0].clone(), self._losses[1].clone()
        return self._losses.clone()

    def _keep(self, losses: Losses) -> None:
        """Keep the losses and the report, whose tensors each replay overwrites."""
        self._losses, self._report = losses, self.optimizer.last_step

    def _used_memory(self) -> list[Tensor]:
        """Return the tensors that steps read and write, except inputs."""
        optimizer, bound = self.optimizer, self._bound
        states = [optimizer.state[param] for param in bound.params if param in optimizer.state]
        return [
            *bound.params,
            *bound.others().values(),
            *(value for state in states for value in state.values() if isinstance(value, Tensor)),
            *(group["lr"] for group in optimizer.param_groups),
        ]

    def _are_where_they_were(self) -> bool:
        memory = self._used_memory()
        return (
            len(memory) == len(self._memory)
            and all(map(operator.is_, memory, self._memory))
            and [tensor.data_ptr() for tensor in memory] == self._addresses
        )
