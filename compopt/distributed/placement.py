"""Where the vectors of a step live, and what processes do together for them."""

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
    """A backward pass, and what :meth:`Placement.gather` makes of it.

    Attributes:
        derive: makes the pass; returns derivatives by ``params``, None for zeros.
        params: the tensors that are differentiated by.
        layout: of the result: that of the part of ``params``, or a :meth:`Placement.message`.
        phase: what is sent, for errors.
    """

    derive: Callable[[], Sequence[Tensor | None]]
    params: Sequence[Tensor]
    layout: FlatLayout
    phase: str


class Placement:
    """Whole vectors in one process, which works alone.

    The forms for several processes derive from it.
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
        # Copies of an optimizer share the processes.
        return self

    def together(self, *orderly: type[Exception]) -> AbstractContextManager[None]:
        """Return a context for what processes do from one :meth:`meet` on.

        Args:
            orderly: errors that all processes raise alike. After any other error in the middle this
                process takes part in nothing more.
        """
        return nullcontext()

    def meet(self, act: Act, count: int, terms: MakeTerms | None, device: torch.device) -> None:
        """Begin what processes do together, unless they are about to do different things.

        Args:
            act: what is about to begin.
            count: how many of these have begun, with this one.
            terms: returns what has to be alike; None to compare nothing.
            device: of the parameters.
        """

    def settings(self) -> dict[str, str]:
        """Return what has to be alike in the placements of processes, as texts by name."""
        return {}

    def layout(self, params: Sequence[Tensor]) -> FlatLayout:
        """Return the layout of the part of a player's vectors that this process keeps."""
        return FlatLayout.of(params)

    def size(self, param: Tensor) -> int:
        """Return the number of entries that this process keeps for ``param``."""
        return param.numel()

    def message(self, layouts: Sequence[FlatLayout], scalars: Sequence[Tensor]) -> FlatLayout:
        """Return the layout of what :meth:`gather` writes: vectors, then means of ``scalars``.

        Where a process works alone there are no means.
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
        """Return ``weight * vector``, of which this process keeps a part, as whole tensors.

        Args:
            params: whose shapes and dtypes the tensors have.
            layout: of the part.
            vector: [size of the part].
            weight: None, or [size of the part].
            scratch: [size of the part] where the product may be written.
            phase: what is sent, for errors.
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
        """Write ``base + factor * scale * (derivatives + added)`` to ``out``, and scalars behind.

        Derivatives and scalars are means over the processes, of which this one keeps a part.

        Args:
            source: of the derivatives.
            out: [size of the source's layout] where to write.
            added: further derivatives of this process, known beforehand.
            scalars: see :meth:`message`.
            scale: [size of the part] or None.
            base: [size of the part] or None. Not modified.
            factor: a number.

        Returns:
            Numbers [k >= 1] whose sum is the inner product of ``base`` and the result, of the part
            that this process keeps; None without ``base``.
        """
        derivatives = source.derive()
        if added is not None:
            derivatives = sums(derivatives, added, out.dtype)
        if factor == 1.0:
            return gather(derivatives, source.layout.shapes, out, scale, base)
        gather(derivatives, source.layout.shapes, out, scale)
        return add_to(base, out.mul_(factor), out)

    def part(self, params: Sequence[Tensor], tensors: Sequence[Tensor | None]) -> Tensor:
        """Return this process's part of a vector that is given as tensors like ``params``."""
        return FlatLayout.of(params).flatten(tensors)

    def whole(
        self, params: Sequence[Tensor], layout: FlatLayout, vector: Tensor
    ) -> Sequence[Tensor]:
        """Return a vector, of which this process keeps ``vector``, in the shapes of ``params``.

        Args:
            params: whose shapes the tensors have.
            layout: of the part.
            vector: [size of the part].
        """
        return pieces(vector, layout.shapes)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over processes of a small tensor."""
        return value

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over all parts of a vector from numbers about this process's part."""
        return partials

    def clear_padding(self, params: Sequence[Tensor], *vectors: Tensor | None) -> None:
        """Set the padding of ``vectors`` between entries of ``params`` to zero, in place."""

    def norms(self, vectors: Mapping[K, Tensor], *, of_any_size: bool = False) -> dict[K, Tensor]:
        """Return Euclidean norms of whole vectors, 0-dim, from this process's parts.

        Args:
            vectors: by player.
            of_any_size: whether norms are to be right, in float64, where the squares of entries
                leave the range of their dtype. They are infinite or zero otherwise, for less time.
        """
        if of_any_size:
            return {player: norm_of_any_size(vector) for player, vector in vectors.items()}
        norms = torch._foreach_norm(list(vectors.values()))
        return dict(zip(vectors, norms, strict=True))

    def entry(self, param: Tensor, piece: Tensor) -> Tensor:
        """Return the state tensor of ``param`` that stands for this process's piece of it."""
        return piece

    def piece(self, param: Tensor, entry: Tensor) -> Tensor:
        """Return this process's piece of a state tensor of ``param``."""
        return entry

    def agree(self, flags: Any) -> Any:
        """Return, on the host, the flags on which all processes act alike.

        Args:
            flags: a tensor [k] or 0-dim, or a list on the host.
        """
        return flags.tolist() if isinstance(flags, Tensor) else flags


def sums(
    tensors: Sequence[Tensor | None], added: Sequence[Tensor | None], dtype: torch.dtype
) -> list[Tensor | None]:
    """Return the sums of tensors in ``dtype``; a missing one counts as zeros."""
    return [
        tensor if other is None else other if tensor is None else tensor.to(dtype) + other
        for tensor, other in zip(tensors, added, strict=True)
    ]


def add_to(base: Tensor | None, value: Tensor, out: Tensor) -> Tensor | None:
    """Write ``base + value`` [n] to ``out``; return parts of ``base . out`` if there is a base."""
    if base is None:
        if value is not out:
            out.copy_(value)
        return None
    torch.add(base, value, out=out)
    return partial_dot(base, out)
