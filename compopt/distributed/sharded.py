"""Data parallel with sharded vectors: each process keeps a part of every one."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from compopt._checks import check_takes_part
from compopt._flat import FlatLayout
from compopt._profiling import Range, marked
from compopt._scale import power_of_two, size_of
from compopt._typing import PLAYERS, Player
from compopt._workspace import Workspace
from compopt.distributed.buckets import OverlappedSum
from compopt.distributed.chunks import Chunks
from compopt.distributed.collectives import Pending
from compopt.distributed.products import ReplicatedHessian
from compopt.distributed.replicated import Replicated
from compopt.game import (
    Game,
    GameGradients,
    curvature_gradients,
    loss_gradients,
)
from compopt.kernels import partial_dot

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class ScatteredSum(OverlappedSum):
    """As its base, each process keeping its part of the sum: ``out`` [sum of ``sizes``]."""

    def _send(
        self, tensors: Sequence[Tensor | None], sizes: Sequence[int], where: slice
    ) -> Pending:
        out = self._out[where]
        chunks = Chunks.of_lengths(sizes, self._collectives.rank, self._collectives.size)
        packed = chunks.pack(tensors, out.dtype, out.device)
        return self._collectives.scatter_sum(packed.view(-1), out, self._phase)


class Sharded(Replicated):
    r"""Data parallel as :class:`Replicated`, with every vector split among the processes.

    Parameters are whole on each rank. Gradients, step sizes, moments, moves and the solver's
    vectors are not: of w ranks each keeps one w-th of every parameter's entries, so that they take
    one w-th of the memory. A product gathers the direction, differentiates, and scatters the sum
    of the results. Zero-sum games with :class:`~compopt.ConjugateGradient` only.

    State tensors are ``DTensor`` s, [number of entries of the parameter], so that
    ``torch.distributed.checkpoint`` saves them and loads them on any number of ranks
    (``get_optimizer_state_dict``, ``set_optimizer_state_dict``).

    Collectives of a step with k iterations, the last one predicted, in vectors of b bytes per
    entry; N and M are the numbers of entries of a player that a rank keeps, each parameter's being
    rounded up:

    ===================  =======================================  =================
    what                 bytes                                    number
    ===================  =======================================  =================
    roll call            40                                       1 (0 capturable)
    gradients, loss      b w (N + M + 1)                          one per bucket
    penalties, if any    b w (N + M)                              one per bucket
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
        bucket_mb: see :class:`Replicated`; of the part that one rank keeps.
    """

    is_sharded = True
    _reduction = ScatteredSum

    def __init__(self, process_group: "dist.ProcessGroup", bucket_mb: float = 25.0) -> None:
        super().__init__(process_group, bucket_mb)
        self._mesh: DeviceMesh | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_mesh": None}

    def chunks(self, params: Sequence[Tensor]) -> Chunks:
        """Return how ``params`` are split."""
        sizes = tuple(param.numel() for param in params)
        return Chunks(sizes, self.collectives.rank, self.collectives.size)

    def layout(self, params: Sequence[Tensor]) -> FlatLayout:
        """Return the layout of the part of a player's vectors that this process keeps."""
        whole, chunks = FlatLayout.of(params), self.chunks(params)
        shapes = tuple(torch.Size([length]) for length in chunks.lengths)
        return FlatLayout(shapes, chunks.lengths, whole.dtype, whole.device)

    def size(self, param: Tensor) -> int:
        """Return the number of entries that this process keeps for ``param``, with padding."""
        return self.chunks([param]).lengths[0]

    def form(self, game: Game) -> dict[str, str]:
        """As :meth:`Replicated.form`; gradients of penalties have messages of their own."""
        penalized = game.min_penalty is not None or game.max_penalty is not None
        # What a rank without samples is to do.
        remedy = "a rank without samples can pass `0 * sum(p.sum() for p in params)`"
        penalties = "given" if penalized else f"none ({remedy})"
        return {**super().form(game), "penalties": penalties}

    @marked(Range.GRADIENTS)
    def differentiate(
        self,
        game: Game,
        params: Mapping[Player, Sequence[Tensor]],
        *,
        scale: float = 1.0,
        second_order: bool = True,
        workspace: Workspace | None = None,
    ) -> GameGradients:
        """Return this process's parts of the gradients of the mean loss, and of products."""
        if game.max_loss is not None:
            raise TypeError(
                "Sharded vectors are for zero-sum games; got a loss for each player. Pass the "
                "process group itself for whole vectors on every rank."
            )
        both = [*params["min"], *params["max"]]
        layouts = {player: self.layout(params[player]) for player in PLAYERS}
        joint = FlatLayout.of([*both, game.loss.detach()])
        loss = game.loss.detach().reshape(1)
        sizes = [*layouts["min"].sizes, *layouts["max"].sizes, 1]
        out = torch.empty(sum(sizes), dtype=joint.dtype, device=joint.device)
        penalties = self._penalty_tensors(game, params)
        grads = self.reduce(
            partial(loss_gradients, "loss", game.loss, both, **game.graph_options(second_order)),
            both,
            sizes,
            out,
            "the gradients",
            # Every rank is to have the mean of the losses.
            extra=[loss.expand(self.collectives.size)],
        )
        count = len(params["min"])
        check_takes_part("min", grads[:count], game.min_penalty)
        check_takes_part("max", grads[count:], game.max_penalty)
        curvature = curvature_gradients(game, both, grads, second_order)
        by_player: dict[Player, Sequence[Tensor | None]] = {
            "min": curvature[:count],
            "max": curvature[count:],
        }
        if penalties is not None:
            added = torch.empty_like(out[:-1])
            self.reduce(lambda: penalties, both, sizes[:-1], added, "the penalties")
            out[:-1].add_(added)
        out.mul_(1 / self.collectives.size)
        grad_min, grad_max, mean = torch.split(out, [layouts["min"].numel, layouts["max"].numel, 1])
        whole = {player: FlatLayout.of(params[player]) for player in PLAYERS}
        return GameGradients(
            loss=mean.reshape(game.loss.shape).to(game.loss.dtype, copy=True),
            grad_min=grad_min.to(layouts["min"].dtype),
            grad_max=grad_max.neg_().to(layouts["max"].dtype),
            mixed=ShardedHessian(by_player, params, whole, scale, self),
        )

    def _penalty_tensors(
        self, game: Game, params: Mapping[Player, Sequence[Tensor]]
    ) -> list[Tensor | None] | None:
        """Return the penalties' gradients, the max player's negated; None without penalties."""
        if game.min_penalty is None and game.max_penalty is None:
            return None
        penalties: dict[Player, Tensor | None] = {"min": game.min_penalty, "max": game.max_penalty}
        tensors: list[Tensor | None] = []
        for player, penalty in penalties.items():
            grads: Sequence[Tensor | None] = [None] * len(params[player])
            if penalty is not None:
                name = f"{player}_penalty"
                grads = loss_gradients(name, penalty, params[player], retain_graph=True)
            sign = 1 if player == "min" else -1
            tensors += [None if grad is None else grad * sign for grad in grads]
        return tensors

    def gather(
        self, params: Sequence[Tensor], vector: Tensor, phase: str = "the moves"
    ) -> list[Tensor]:
        """Return a vector, of which this process keeps ``vector``, as tensors like ``params``."""
        whole = vector.new_empty(self.collectives.size * vector.numel())
        self.collectives.gather(vector, whole, phase)
        pieces = self.chunks(params).unpack(whole.view(self.collectives.size, -1))
        return [piece.view(param.shape) for piece, param in zip(pieces, params, strict=True)]

    def whole(self, params: Sequence[Tensor], vector: Tensor) -> list[Tensor]:
        """As :meth:`gather`. One all-gather."""
        return self.gather(params, vector)

    def part(self, params: Sequence[Tensor], tensors: Sequence[Tensor | None]) -> Tensor:
        """Return this process's part of a vector that is given as tensors like ``params``."""
        layout = FlatLayout.of(params)
        packed = self.chunks(params).pack(tensors, layout.dtype, layout.device)
        return packed[self.collectives.rank].clone()

    def entry(self, param: Tensor, piece: Tensor) -> Tensor:
        """Return this process's piece as the local part of a ``DTensor`` [entries of param]."""
        # Here, lest `import compopt` take half as long again.
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
        """Return this process's piece of a state tensor, padded; of a whole one too."""
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
        """Set what is between the pieces of parameters to zero."""
        chunks = self.chunks(params)
        if chunks.own == chunks.lengths:
            return
        for vector in vectors:
            pieces = () if vector is None else torch.split(vector, list(chunks.lengths))
            for piece, own in zip(pieces, chunks.own, strict=vector is not None):
                piece[own:].zero_()

    def norms(
        self, vectors: Mapping[Player, Tensor], *, of_any_size: bool = False
    ) -> dict[Player, Tensor]:
        """Return Euclidean norms of whole vectors, 0-dim. One all-reduce for all of them.

        Two for vectors of any size.
        """
        parts, scale = list(vectors.values()), None
        if of_any_size:
            sizes = self.total(torch.stack([size_of(part) for part in parts]))
            scale = power_of_two(sizes.double())
            parts = [part.double() / unit for part, unit in zip(parts, scale, strict=True)]
        norms = self.total(torch.stack([torch.dot(part, part) for part in parts])).sqrt()
        return dict(zip(vectors, norms if scale is None else norms * scale, strict=True))


class ShardedHessian(ReplicatedHessian):
    """The mean over processes of their mixed blocks, for vectors of which each keeps a part."""

    _placement: Sharded

    def __init__(
        self,
        grads: Mapping[Player, Sequence[Tensor | None]],
        params: Mapping[Player, Sequence[Tensor]],
        layouts: Mapping[Player, FlatLayout],
        scale: float,
        placement: Sharded,
    ) -> None:
        super().__init__(grads, params, layouts, scale, placement)
        self._parts = {player: placement.layout(params[player]) for player in PLAYERS}

    def size(self, player: Player) -> int:
        """Return the number of entries that this process keeps."""
        return self._parts[player].numel

    def layout(self, player: Player) -> FlatLayout:
        """Return the layout of the part that this process keeps."""
        return self._parts[player]

    def hvp(
        self,
        player: Player,
        vector: Tensor,
        out: Tensor | None = None,
        scale: Tensor | None = None,
        weight: Tensor | None = None,
        room: Tensor | None = None,
    ) -> Tensor:
        """Return this process's part of the product, from its part of the vector."""
        out = self._sum(player, vector, out, None, weight, room).mul_(self._factor())
        return out if scale is None else out.mul_(scale)

    def hvp_plus(
        self, player: Player, vector: Tensor, base: Tensor, out: Tensor, scale: Tensor
    ) -> Tensor:
        """As :meth:`~compopt.game.MixedHessian.hvp_plus`, for the part of this process."""
        self.hvp(player, vector, out, scale).add_(base)
        return partial_dot(base, out)

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over whole vectors."""
        return self._placement.total(partials)

    def _weights(
        self, source: Player, vector: Tensor, weight: Tensor | None, room: Tensor | None
    ) -> list[Tensor]:
        own = vector if weight is None else torch.mul(vector, weight, out=room)
        params = self._params[source]
        phase = f"direction {self.num_products}, of the {source} player"
        return self._placement.gather(params, own, phase)
