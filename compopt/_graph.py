"""Traversal of autograd graphs."""

from collections.abc import Iterable, Iterator
from typing import Any


def walk(starts: Iterable[Any]) -> Iterator[Any]:
    """Yield each node of the autograd graphs behind ``starts`` once, including ``starts``.

    Cost: proportional to the number of nodes that are consumed.

    Args:
        starts: ``grad_fn`` of each tensor, None for a tensor without a graph.
    """
    pending, seen = [*starts], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        pending += [following for following, _ in node.next_functions]
