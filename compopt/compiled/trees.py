"""Nested values, separated from their tensors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


class _Here:
    """The type of the mark that replaces a tensor."""

    def __repr__(self) -> str:
        return "tensor"


HERE = _Here()
"""The mark in the place of a tensor."""


@dataclass(frozen=True)
class Tree:
    """Nested tuples, lists and dictionaries, with marks in place of their tensors.

    Attributes:
        leaves: values other than tensors, and marks in place of tensors.
        spec: how they are nested.
    """

    leaves: Sequence[Any]
    spec: pytree.TreeSpec

    @classmethod
    def of(cls, nested: Any) -> "tuple[list[Tensor], Tree]":
        """Return the tensors of ``nested`` in order, and the rest."""
        leaves, spec = pytree.tree_flatten(nested)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        rest = [HERE if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return tensors, cls(rest, spec)

    def filled(self, tensors: Iterable[Tensor]) -> Any:
        """Return the nested values with these tensors, in order."""
        given = iter(tensors)
        leaves = [next(given) if leaf is HERE else leaf for leaf in self.leaves]
        return pytree.tree_unflatten(leaves, self.spec)
