"""Where the vectors of a step live, and what processes do together for them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from compopt._flat import FlatLayout
from compopt._scale import norm_of_any_size
from compopt._typing import PLAYERS, Player
from compopt._workspace import Workspace
from compopt.distributed.meeting import Act, Terms
from compopt.field import GeneralGradients, differentiate_general
from compopt.game import Game, GameGradients, differentiate


class Placement:
    """Whole vectors in one process, which works alone.

    The forms for several processes derive from it.
    """

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

    def meet(
        self,
        act: Act,
        count: int,
        terms: Callable[[], Terms] | None,
        device: torch.device,
    ) -> None:
        """Begin what processes do together, unless they are about to do different things.

        Args:
            act: what is about to begin.
            count: how many of these have begun, with this one.
            terms: returns what has to be alike; None to compare nothing.
            device: of the parameters.
        """

    def form(self, game: Game) -> dict[str, str]:
        """Return what has to be alike in the games of processes, as texts by name."""
        return {}

    def differentiate(
        self,
        game: Game,
        params: Mapping[Player, Sequence[Tensor]],
        *,
        scale: float = 1.0,
        second_order: bool = True,
        workspace: Workspace | None = None,
    ) -> GameGradients | GeneralGradients:
        """Return the gradients of a game over the data of all processes, and its products.

        Args:
            game: the loss on this process's data, with its graph.
            params: by player.
            scale: see :func:`~compopt.game.differentiate`.
            second_order: see there.
            workspace: where the gradients are written; new vectors if None.
        """
        if game.max_loss is not None:
            return differentiate_general(game, params, second_order)
        out = None
        if workspace is not None:
            out = {p: workspace.vector(self.layout(params[p]), p, "grad") for p in PLAYERS}
        return differentiate(
            game, params["min"], params["max"], scale=scale, second_order=second_order, out=out
        )

    def layout(self, params: Sequence[Tensor]) -> FlatLayout:
        """Return the layout of the part of a player's vectors that this process keeps."""
        return FlatLayout.of(params)

    def size(self, param: Tensor) -> int:
        """Return the number of entries that this process keeps for ``param``."""
        return param.numel()

    def part(self, params: Sequence[Tensor], tensors: Sequence[Tensor | None]) -> Tensor:
        """Return this process's part of a vector that is given as tensors like ``params``."""
        return FlatLayout.of(params).flatten(tensors)

    def whole(self, params: Sequence[Tensor], vector: Tensor) -> list[Tensor]:
        """Return a vector, of which this process keeps ``vector``, as tensors like ``params``."""
        return FlatLayout.of(params).views(vector)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over processes of a small tensor."""
        return value

    def total(self, partials: Tensor) -> Tensor:
        """Return sums over all parts of a vector from numbers about this process's part."""
        return partials

    def clear_padding(self, params: Sequence[Tensor], *vectors: Tensor | None) -> None:
        """Set what ``vectors`` have besides entries of ``params`` to zero, in place."""

    def norms(
        self, vectors: Mapping[Player, Tensor], *, of_any_size: bool = False
    ) -> dict[Player, Tensor]:
        """Return Euclidean norms of whole vectors, 0-dim, from this process's parts.

        Args:
            vectors: by player.
            of_any_size: whether norms are to be right, in float64, where the squares of entries
                leave the range of their dtype. They are infinite or zero otherwise, for less time.
        """
        norm = norm_of_any_size if of_any_size else torch.linalg.vector_norm
        return {player: norm(vector) for player, vector in vectors.items()}

    def entry(self, param: Tensor, piece: Tensor) -> Tensor:
        """Return the state tensor of ``param`` that stands for this process's piece of it."""
        return piece

    def piece(self, param: Tensor, entry: Tensor) -> Tensor:
        """Return this process's piece of a state tensor of ``param``."""
        return entry

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes act alike."""
        return flags
