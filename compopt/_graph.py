"""The graph that autograd keeps behind a tensor."""

from collections.abc import Iterable, Iterator
from typing import Any


def walk(starts: Iterable[Any]) -> Iterator[Any]:
    """Yield each operation of the graphs behind some operations once, these included.

    Cost: that of the part which is consumed.

    Args:
        starts: ``grad_fn`` of tensors, None for those without a graph.
    """
    pending, seen = [*starts], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        pending += [following for following, _ in node.next_functions]
