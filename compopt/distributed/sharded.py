"""Data parallelism with sharded vectors: each process keeps a part of each vector."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributed as dist

from compopt._flat import FlatLayout
from compopt._typing import K
from compopt.distributed.buckets import OverlappedSum
from compopt.distributed.chunks import Chunks
from compopt.distributed.collectives import Pending
from compopt.distributed.placement import Pass, add_to
from compopt.distributed.replicated import Replicated
from compopt.kernels._numbers import power_of_two, size_of

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class ScatteredSum(OverlappedSum):
    """A reduce-scatter: as the base, but each process keeps its part of the sum in ``out``."""

    def _send(
        self, tensors: Sequence[Tensor | None], shapes: Sequence[torch.Size], where: slice
    ) -> Pending:
        out = self._out[where]
        chunks = Chunks.of_lengths(
            [s.numel() for s in shapes], self._collectives.rank, self._collectives.size
        )
        packed = chunks.pack(tensors, out.dtype, out.device)
        return self._collectives.scatter_sum(packed.view(-1), out, self._phase)


class Sharded(Replicated):
    r"""Data parallelism as in :class:`Replicated`, with every vector sharded over the processes.

    Parameters are whole on each rank. Gradients, step sizes, moments, moves and the solver's
    vectors are sharded: each of w ranks keeps one w-th of every parameter's entries, and these
    vectors take one w-th of the memory. A product all-gathers the direction, differentiates, and
    reduce-scatters the result. The solver must be :class:`~compopt.ConjugateGradient` or
    :class:`~compopt.GMRES`; mirror maps are not supported, as they need whole vectors.

    State tensors are ``DTensor`` s, [number of entries of the parameter]:
    ``torch.distributed.checkpoint`` can save them and load them on any number of ranks
    (``get_optimizer_state_dict``, ``set_optimizer_state_dict``).

    Collectives of a zero-sum step with k iterations, the last one predicted, in vectors of b bytes
    per entry. N and M are the numbers of entries that a rank keeps for each player, rounded up for
    each parameter:

    ===================  =======================================  =================
    what                 bytes                                    number
    ===================  =======================================  =================
    roll call            40                                       1 (0 capturable)
    gradients, loss      b w (N + M + 1)                          one per bucket
    direction            b N or b M, of the player it is of       2 k
    half product         b w N or b w M                           2 k per bucket
    inner products       b each                                   2 k + 1
    size of the system   b                                        1
    norms                2 b each                                 2
    moves                b N and b M                              2
    looks, decision      16 and 24                                k and 1
    ===================  =======================================  =================

    A last iteration that is not predicted adds one product, its direction and one look. A first
    guess adds one product and its direction, a second size and a second inner product in the first
    two messages, and one message of 3 b bytes (three inner products) at each look and at the end.

    Args:
        process_group: see :class:`Replicated`.
        bucket_mb: see :class:`Replicated`; counts the part that one rank keeps.
    """

    is_sharded = True
    _reduction = ScatteredSum

    def __init__(self, process_group: "dist.ProcessGroup", bucket_mb: float = 25.0) -> None:
        super().__init__(process_group, bucket_mb)
        self._mesh: DeviceMesh | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_mesh": None}

    def chunks(self, params: Sequence[Tensor]) -> Chunks:
        """Return the split of ``params`` into chunks."""
        sizes = tuple(param.numel() for param in params)
        return Chunks(sizes, self.collectives.rank, self.collectives.size)

    def layout(self, params: Sequence[Tensor]) -> FlatLayout:
        """Return the layout of this process's part of a player's vectors."""
        whole, chunks = FlatLayout.of(params), self.chunks(params)
        shapes = tuple(torch.Size([length]) for length in chunks.lengths)
        return FlatLayout(shapes, chunks.lengths, whole.dtypes, whole.dtype, whole.device)

    def size(self, param: Tensor) -> int:
        """Return the number of entries that this process keeps for ``param``, with padding."""
        return self.chunks([param]).lengths[0]

    def gather(
        self, source: Pass, out: Tensor, *, base: Any = None, scale: Any = None, **terms: Any
    ) -> Tensor | None:
        """As :meth:`Placement.gather`, for this process's part of the sum."""
        super().gather(source, out, **terms)
        # Apply the scale after the sum: it is sharded like the result.
        return add_to(base, out if scale is None else out.mul_(scale), out)

    def _for_all(self, scalar: Tensor) -> Tensor:
        return scalar.reshape(1).expand(self.collectives.size)

    def scatter(
        self, params: Sequence[Tensor], layout: Any, vector: Tensor, *scaling: Any, phase: str = ""
    ) -> Sequence[Tensor]:
        """As :meth:`Placement.scatter`. One all-gather."""
        weight, scratch = (*scaling, None, None)[:2]
        own = vector if weight is None else torch.mul(vector, weight, out=scratch)
        whole = self._all(params, own, phase)
        return [tensor.to(param.dtype) for tensor, param in zip(whole, params, strict=True)]

    def whole(
        self, params: Sequence[Tensor], layout: FlatLayout, vector: Tensor
    ) -> Sequence[Tensor]:
        """Return a vector as whole tensors, given this process's part of it.

        One all-gather.
        """
        return self._all(params, vector, "the moves")

    def _all(self, params: Sequence[Tensor], vector: Tensor, phase: str) -> list[Tensor]:
        whole = vector.new_empty(self.collectives.size * vector.numel())
        self.collectives.gather(vector, whole, phase)
        pieces = self.chunks(params).unpack(whole.view(self.collectives.size, -1))
        return [piece.view(param.shape) for piece, param in zip(pieces, params, strict=True)]

    def part(self, params: Sequence[Tensor], tensors: Sequence[Tensor | None]) -> Tensor:
        """Return this process's part of the vector of ``tensors``, shaped as ``params``."""
        layout = FlatLayout.of(params)
        packed = self.chunks(params).pack(tensors, layout.dtype, layout.device)
        return packed[self.collectives.rank].clone()

    def entry(self, param: Tensor, piece: Tensor) -> Tensor:
        """Return this process's piece as the local part of a ``DTensor`` [entries of param]."""
        # Imported lazily: it takes half as long as `import compopt`.
        from torch.distributed.device_mesh import DeviceMesh
        from torch.distributed.tensor import DTensor, Shard

        if self._mesh is None:
            self._mesh = DeviceMesh.from_group(self.collectives.group, param.device.type)
        own = piece[: self.chunks([param]).own[0]]
        return DTensor.from_local(
            own,
            self._mesh,
            [Shard(0)],
            run_check=False,
            shape=torch.Size([param.numel()]),
            stride=(1,),
        )

    def piece(self, param: Tensor, entry: Tensor) -> Tensor:
        """Return this process's piece of a whole or sharded state tensor, padded."""
        from torch.distributed.tensor import DTensor

        if not isinstance(entry, DTensor):
            return self.part([param], [entry]).to(entry.dtype)
        own = entry.to_local()
        return torch.nn.functional.pad(own, (0, self.size(param) - own.numel()))

    def total(self, partials: Tensor) -> Tensor:
        """Return the sum over processes. One all-reduce."""
        total = partials.clone()
        self.collectives.sum_(total, "an inner product").wait()
        return total

    def clear_padding(self, params: Sequence[Tensor], *vectors: Tensor | None) -> None:
        """Set the padding after each piece of a parameter to zero, in place."""
        chunks = self.chunks(params)
        if chunks.own == chunks.lengths:
            return
        for vector in vectors:
            pieces = () if vector is None else torch.split(vector, list(chunks.lengths))
            for piece, own in zip(pieces, chunks.own, strict=vector is not None):
                piece[own:].zero_()

    def norms(self, vectors: Mapping[K, Tensor], *, of_any_size: bool = False) -> dict[K, Tensor]:
        """Return Euclidean norms of whole vectors, 0-dim.

        One all-reduce for all of them; two with ``of_any_size``.
        """
        parts, scale = list(vectors.values()), None
        if of_any_size:
            sizes = self.total(torch.stack([size_of(part) for part in parts]))
            scale = power_of_two(sizes.double())
            parts = [part.double() / unit for part, unit in zip(parts, scale, strict=True)]
        norms = self.total(torch.stack([torch.dot(part, part) for part in parts])).sqrt()
        return dict(zip(vectors, norms if scale is None else norms * scale, strict=True))
