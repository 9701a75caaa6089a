"""Placement of a step's vectors on processes, and the communication that it needs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from compopt._flat import FlatLayout
from compopt._typing import K
from compopt.distributed.meeting import Act, MakeTerms
from compopt.kernels import gather, partial_dot, pieces, scatter
from compopt.kernels._numbers import norm_of_any_size


class Pass(NamedTuple):
    """A backward pass and the layout of its gathered result, for :meth:`Placement.gather`.

    Attributes:
        derive: makes the pass; returns derivatives by ``params``, None for zeros.
        params: tensors to differentiate by.
        layout: layout of the result: this process's part of ``params``, or a
            :meth:`Placement.message`.
        phase: name of what is sent, for errors.
    """

    derive: Callable[[], Sequence[Tensor | None]]
    params: Sequence[Tensor]
    layout: FlatLayout
    phase: str


class Placement:
    """Whole vectors in a single process.

    Base class of the placements for several processes.
    """

    is_shared = False
    """Whether other processes have other parts of a batch."""

    is_sharded = False
    """Whether each process keeps only a part of every vector."""

    num_collectives: int = 0
    """Collective operations so far."""

    num_bytes: int = 0
    """Bytes that this process has put into them so far."""

    def __deepcopy__(self, memo: object) -> "Placement":
        # Copies of an optimizer share the process group.
        return self

    def together(self, *orderly: type[Exception]) -> AbstractContextManager[None]:
        """Return a context for an exchange, which starts with :meth:`meet`.

        Args:
            orderly: errors that all processes raise alike. After any other error during the
                exchange, this process takes part in no further one.
        """
        return nullcontext()

    def meet(self, act: Act, count: int, terms: MakeTerms | None, device: torch.device) -> None:
        """Start an exchange; raise if processes are about to do different things.

        Args:
            act: kind of exchange.
            count: number of exchanges of this kind, including this one.
            terms: returns the properties that must be equal; None to compare nothing.
            device: device of the parameters.
        """

    def settings(self) -> dict[str, str]:
        """Return the settings that must be equal on all processes, as texts by name."""
        return {}

    def layout(self, params: Sequence[Tensor]) -> FlatLayout:
        """Return the layout of this process's part of a player's vectors."""
        return FlatLayout.of(params)

    def size(self, param: Tensor) -> int:
        """Return the number of entries that this process keeps for ``param``."""
        return param.numel()

    def message(self, layouts: Sequence[FlatLayout], scalars: Sequence[Tensor]) -> FlatLayout:
        """Return the layout of the output of :meth:`gather`: vectors, then means of ``scalars``.

        A single process writes no means.
        """
        if len(layouts) == 1:
            return layouts[0]
        return FlatLayout.joined(*layouts)

    def scatter(
        self,
        params: Sequence[Tensor],
        layout: FlatLayout,
        vector: Tensor,
        weight: Tensor | None = None,
        scratch: Tensor | None = None,
        /,
        *,
        phase: str = "the moves",
    ) -> Sequence[Tensor]:
        """Return ``weight * vector`` as whole tensors, given this process's part of each.

        Args:
            params: tensors whose shapes and dtypes the result has.
            layout: layout of the part.
            vector: [size of the part].
            weight: [size of the part] or None.
            scratch: [size of the part] vector that may hold the product, or None.
            phase: name of what is sent, for errors.
        """
        return scatter(vector, layout.shapes, layout.dtypes, weight, scratch)

    def gather(
        self,
        source: Pass,
        out: Tensor,
        *,
        added: Sequence[Tensor | None] | None = None,
        scalars: Sequence[Tensor] = (),
        scale: Tensor | None = None,
        base: Tensor | None = None,
        factor: float = 1.0,
    ) -> Tensor | None:
        """Write ``base + factor * scale * (derivatives + added)`` and the scalars to ``out``.

        Derivatives and scalars are averaged over processes. Each keeps its part of the result.

        Args:
            source: the backward pass.
            out: [size of the source's layout] vector to write to.
            added: further derivatives of this process, or None.
            scalars: see :meth:`message`.
            scale: [size of the part] or None.
            base: [size of the part] or None. Not modified.
            factor: a number.

        Returns:
            Partial sums [k >= 1] of the inner product of ``base`` and the result, over this
            process's part; None without ``base``.
        """
        derivatives = source.derive()
        if added is not None:
            derivatives = sums(derivatives, added, out.dtype)
        if factor == 1.0:
            return gather(derivatives, source.layout.shapes, out, scale, base)
        gather(derivatives, source.layout.shapes, out, scale)
        return add_to(base, out.mul_(factor), out)

    def part(self, params: Sequence[Tensor], tensors: Sequence[Tensor | None]) -> Tensor:
        """Return this process's part of the vector of ``tensors``, shaped as ``params``."""
        return FlatLayout.of(params).flatten(tensors)

    def whole(
        self, params: Sequence[Tensor], layout: FlatLayout, vector: Tensor
    ) -> Sequence[Tensor]:
        """Return a vector as whole tensors, given this process's part of it.

        Args:
            params: tensors whose shapes the result has.
            layout: layout of the part.
            vector: [size of the part].
        """
        return pieces(vector, layout.shapes)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a small tensor over processes."""
        return value

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over whole vectors, given the sums over this process's parts."""
        return partials

    def clear_padding(self, params: Sequence[Tensor], *vectors: Tensor | None) -> None:
        """Set the padding of ``vectors`` after each piece of ``params`` to zero, in place."""

    def norms(self, vectors: Mapping[K, Tensor], *, of_any_size: bool = False) -> dict[K, Tensor]:
        """Return Euclidean norms of whole vectors, 0-dim, from this process's parts.

        Args:
            vectors: by player.
            of_any_size: whether to compute in float64 and scale, so that norms are correct even if
                the squares of entries overflow or underflow in their dtype. Slower.
        """
        if of_any_size:
            return {player: norm_of_any_size(vector) for player, vector in vectors.items()}
        norms = torch._foreach_norm(list(vectors.values()))
        return dict(zip(vectors, norms, strict=True))

    def entry(self, param: Tensor, piece: Tensor) -> Tensor:
        """Return the state tensor of ``param`` that represents this process's piece."""
        return piece

    def piece(self, param: Tensor, entry: Tensor) -> Tensor:
        """Return this process's piece of a state tensor of ``param``."""
        return entry

    def agree(self, flags: Any) -> Any:
        """Return, on the host, flags that are equal on all processes.

        Args:
            flags: a tensor [k] or 0-dim, or a list on the host.
        """
        return flags.tolist() if isinstance(flags, Tensor) else flags


def sums(
    tensors: Sequence[Tensor | None], added: Sequence[Tensor | None], dtype: torch.dtype
) -> list[Tensor | None]:
    """Return the sums of pairs of tensors, computed in ``dtype``; missing ones count as zeros."""
    return [
        tensor if other is None else other if tensor is None else tensor.to(dtype) + other
        for tensor, other in zip(tensors, added, strict=True)
    ]


def add_to(base: Tensor | None, value: Tensor, out: Tensor) -> Tensor | None:
    """Write ``base + value`` [n] to ``out``; return partial sums of ``base . out`` if any base."""
    if base is None:
        if value is not out:
            out.copy_(value)
        return None
    torch.add(base, value, out=out)
    return partial_dot(base, out)
