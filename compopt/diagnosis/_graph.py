"""Find the modules that created autograd nodes, and the nodes where a backward pass fails."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from compopt._graph import walk

_Grads = Sequence[Tensor | None]
_Hook = Callable[[Node, _Grads, _Grads], None]


class GraphLabels:
    """Labels of autograd nodes: the operation and the innermost module that created each.

    Nodes created while a backward pass runs through a node carry that node's label. The labels
    keep references to the nodes, and so keep the graph alive: an autograd node loses its identity
    in Python once Python has no reference to it.

    Args:
        modules: labels of the modules to name.
    """

    def __init__(self, modules: Mapping[nn.Module, str]) -> None:
        self._modules = modules
        self._labels: dict[Node, str] = {}
        self._running: list[nn.Module] = []
        self._handles: list[RemovableHandle] = []
        self._is_tracking = False
        self._finite: list[tuple[str, Tensor]] = []

    def of(self, node: Node) -> str:
        """Return the label of ``node``."""
        return self._labels.get(node, f"`{_name(node)}`")

    def first_not_finite(self) -> str | None:
        """Return the label of the first module with a non-finite output. Synchronises."""
        return next((label for label, finite in self._finite if not finite), None)

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Label the nodes that modules and backward passes create inside the context."""
        self._is_tracking = True
        for module in self._modules:
            self._handles += [
                module.register_forward_pre_hook(self._enter_module, with_kwargs=True),
                module.register_forward_hook(self._leave_module, always_call=True),
            ]
        for node in self._labels:
            self._track(node)
        try:
            yield
        finally:
            self._is_tracking = False
            # Hooks refer to the labels and labels to the nodes: this cycle would keep the graph.
            for handle in self._handles:
                handle.remove()
            self._handles.clear()
            self._running.clear()

    def extend(
        self, tensors: Iterable[Tensor], module: str | None = None, label: str | None = None
    ) -> None:
        """Label the nodes that ``tensors`` depend on, stopping at nodes that have a label.

        Args:
            tensors: outputs of the graph.
            module: label of the module that created the nodes; None for the loss function itself.
            label: label for all nodes, instead of each node's name and ``module``.
        """
        where = "the loss function, outside of named modules" if module is None else module
        pending = [tensor.grad_fn for tensor in tensors]
        while pending:
            node = pending.pop()
            if node is None or node in self._labels:
                continue
            self._labels[node] = f"`{_name(node)}` of {where}" if label is None else label
            if self._is_tracking:
                self._track(node)
            pending += [parent for parent, _ in node.next_functions]

    def _track(self, node: Node) -> None:
        self._handles.append(node.register_hook(partial(self._leave_node, node)))

    def _leave_node(self, node: Node, grad_inputs: _Grads, grad_outputs: _Grads) -> None:
        self.extend(present(grad_inputs), label=self._labels[node])

    def _enter_module(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        # A compiled function is one autograd node, but traces the hooks of its modules.
        if torch.compiler.is_compiling():
            return
        # Nodes of the inputs were created before this call: by the enclosing module, if any.
        outer = self._modules[self._running[-1]] if self._running else None
        self.extend(tensors_in((args, kwargs)), outer)
        self._running.append(module)

    def _leave_module(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        if torch.compiler.is_compiling():
            return
        if self._running and self._running[-1] is module:
            self._running.pop()
        label = self._modules[module]
        tensors = list(tensors_in(output))
        self.extend(tensors, label)
        self._finite += [(label, tensor.detach().isfinite().all()) for tensor in tensors]


def nodes_of(tensors: Iterable[Tensor]) -> list[Node]:
    """Return the nodes of the graphs of ``tensors``."""
    return list(walk(tensor.grad_fn for tensor in tensors))


def failing_node(outputs: Iterable[Tensor], run: Callable[[], object]) -> Node | None:
    """Return the node in which ``run``, a backward pass from ``outputs``, raises its error."""
    started: list[Node] = []

    def start(node: Node, grad_outputs: _Grads) -> None:
        started.append(node)

    handles = [node.register_prehook(partial(start, node)) for node in nodes_of(outputs)]
    try:
        run()
    except RuntimeError:
        return started[-1] if started else None
    finally:
        _remove(handles)
    return None


def spoiling_node(outputs: Iterable[Tensor], run: Callable[[], object]) -> Node | None:
    """Return the first node that produces a non-finite gradient in ``run``.

    ``run`` is a backward pass from ``outputs``.
    """
    spoilers: list[Node] = []

    def check(node: Node, grad_inputs: _Grads, grad_outputs: _Grads) -> None:
        if not spoilers and not are_finite(grad_inputs):
            spoilers.append(node)

    with _hooked(nodes_of(outputs), check):
        run()
    return spoilers[0] if spoilers else None


@contextmanager
def cutting_nodes(outputs: Iterable[Tensor]) -> Iterator[list[Node]]:
    """Collect the custom functions whose backward pass, run inside the context, cuts the graph.

    Their gradients should depend on the incoming gradient, but were computed outside of autograd
    (by a kernel, ``detach`` or ``once_differentiable``), so ``torch.autograd.grad`` silently treats
    them as constants. Zero gradients, such as those of rounding, are constant and not collected.
    """
    cutting: list[Node] = []

    def check(node: Node, grad_inputs: _Grads, grad_outputs: _Grads) -> None:
        if any(grad.requires_grad for grad in present(grad_outputs)):
            cut = [grad for grad in present(grad_inputs) if _is_cut(grad)]
            if any(bool(grad.any()) for grad in cut):
                cutting.append(node)

    custom = [node for node in nodes_of(outputs) if isinstance(node, BackwardCFunction)]
    with _hooked(custom, check):
        yield cutting


def _name(node: Node) -> str:
    # In older torch, nodes of custom functions have no method `name`.
    return type(node).__name__


def _is_cut(grad: Tensor) -> bool:
    # `once_differentiable` attaches an `Error` node. It has no inputs, so a backward pass to the
    # parameters never reaches it and its error is not raised.
    marked = grad.grad_fn is not None and _name(grad.grad_fn) == "Error"
    return marked or not grad.requires_grad


@contextmanager
def _hooked(nodes: Iterable[Node], hook: _Hook) -> Iterator[None]:
    """Call ``hook`` with each node and its gradients after the node runs."""
    handles = [node.register_hook(partial(hook, node)) for node in nodes]
    try:
        yield
    finally:
        _remove(handles)


def _remove(handles: Iterable[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def are_finite(tensors: _Grads) -> bool:
    """Return True if all entries of the tensors that are not None are finite. Synchronises."""
    return all(bool(tensor.isfinite().all()) for tensor in present(tensors))


def present(tensors: _Grads) -> list[Tensor]:
    """Return the tensors that are not None."""
    return [tensor for tensor in tensors if tensor is not None]


def tensors_in(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested containers and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in([getattr(value, field.name) for field in fields(value)])


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return ``value`` with ``function`` applied to the tensors in it, in the same order."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: mapped(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [mapped(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: mapped(getattr(value, f.name), function) for f in fields(value)}
        return replace(value, **changed)
    return value
