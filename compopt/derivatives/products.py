"""Products with the second derivatives of a game."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Generic, Protocol

from torch import Tensor

from compopt._checks import check_vector
from compopt._flat import FlatLayout, split_players
from compopt._profiling import Range, in_range, is_profiled
from compopt._typing import OPPONENT, K, Player
from compopt.derivatives.autograd import Grads, differentiate_once
from compopt.distributed.placement import Pass, Placement, add_to

HERE = Placement()
"""Whole vectors, in one process."""


class Coordinates(Protocol):
    """A linear change of coordinates for one player: ``move = S @ local``."""

    def push(self, local: Tensor) -> Tensor:
        """Return ``S @ local``."""

    def pull(self, gradient: Tensor) -> Tensor:
        """Return ``S^T @ gradient``."""


class Derivatives(Generic[K]):
    """The players' own gradients, and products with blocks of second derivatives.

    Player i minimises ``L_i = sign_i * loss``. In a zero-sum game both players have the same loss
    and opposite signs. Vectors are flat, one per player. If several processes share a step,
    gradients and products are means over the processes. Only this object holds the graph.

    Args:
        grads: by player, [size of the player] the gradient of its own objective; empty if only
            products are needed.
        losses: detached losses: one in a zero-sum game, else one per player.
        first: ``first[i][j]`` are the gradients of the objective of i by the parameters of j, which
            products differentiate.
        signs: sign of each player.
        params: parameters of each player.
        placement: placement of the vectors.
        scale: factor that the losses were multiplied by; products are divided by it.
        layouts: layouts of the players' vectors, if already known.

    Attributes:
        is_zero_sum: whether there are two players and one loss.
        num_products: number of backward passes made for products.
        without_gradient: by player, the indices of parameters that its loss does not depend on.
            Empty if other processes have parts of the batch.
    """

    def __init__(
        self,
        grads: Mapping[K, Tensor],
        losses: Sequence[Tensor],
        first: Mapping[K, Mapping[K, Grads]],
        signs: Mapping[K, int],
        params: Mapping[K, Sequence[Tensor]],
        placement: Placement = HERE,
        scale: float = 1.0,
        layouts: Mapping[K, FlatLayout] | None = None,
    ) -> None:
        self.grads = dict(grads)
        self.losses = tuple(losses)
        self.signs = signs
        self.placement = placement
        if layouts is None:
            layouts = {player: placement.layout(tensors) for player, tensors in params.items()}
        self.layouts = layouts
        self.is_zero_sum = sum(signs.values()) == 0
        self.num_products = 0
        self.without_gradient: dict[K, tuple[int, ...]] = {}
        self._first = first
        self.params = params
        self._scale = scale
        self._coordinates: Mapping[K, Coordinates] | None = None

    @classmethod
    def of_loss(
        cls, first: Mapping[K, Grads], params: Mapping[K, Sequence[Tensor]]
    ) -> "Derivatives[K]":
        """Return an object for products with the second derivatives of one loss."""
        return cls({}, (), dict.fromkeys(params, first), dict.fromkeys(params, 1), params)

    def use_coordinates(self, coordinates: Mapping[K, Coordinates]) -> None:
        """Use these coordinates for gradients and for the vectors and results of products."""
        self._coordinates = coordinates
        self.grads = {p: coordinates[p].pull(grad) for p, grad in self.grads.items()}

    def independent(self) -> list[tuple[K, K]]:
        """Return the pairs (i, j) of players for which the loss of i does not depend on j."""
        return [
            (player, other)
            for player, first in self._first.items()
            for other, grads in first.items()
            if other != player and all(grad is None for grad in grads)
        ]

    def product(
        self,
        objective: K,
        rows: K,
        vectors: Mapping[K, Tensor],
        *,
        factor: float = 1.0,
        weight: Tensor | None = None,
        scale: Tensor | None = None,
        out: Tensor | None = None,
        scratch: Tensor | None = None,
    ) -> Tensor:
        """Return ``factor * scale * sum_j D_(rows, j) L_objective @ (weight * vectors[j])``.

        Args:
            objective: the player whose objective is differentiated.
            rows: the player whose parameters the result corresponds to.
            vectors: by player, [size of the player]. Not modified.
            factor: a number.
            weight: [size of the player], for ``vectors`` with one player, or None.
            scale: [size of ``rows``] or None.
            out: [size of ``rows``] vector to write to; a new one if None.
            scratch: vector that may hold the weighted vector, of its size, or None.

        Cost: one backward pass through the graphs of the gradients by the players of ``vectors``.
        """
        if out is None:
            out = self.layouts[rows].new_vector()
        self._product(objective, rows, vectors, out, factor, weight, scale, None, scratch)
        return out

    def mixed_product(self: "Derivatives[Player]", player: Player, vector: Tensor) -> Tensor:
        """Return the mixed block of the min player's loss times ``vector``.

        ``mixed_product("min", v)`` is ``D_xy f @ v``; ``mixed_product("max", u)``, ``D_yx f @ u``.

        Args:
            player: the player whose parameters the result corresponds to.
            vector: [size of the opponent]. Not modified.
        """
        return self.product("min", player, {OPPONENT[player]: vector})

    def add_product(
        self,
        objective: K,
        rows: K,
        vectors: Mapping[K, Tensor],
        base: Tensor,
        out: Tensor,
        *,
        factor: float = 1.0,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Write ``base`` plus :meth:`product` to ``out`` in one pass.

        Args:
            objective: see :meth:`product`.
            rows: see :meth:`product`.
            vectors: see :meth:`product`.
            base: [size of ``rows``]. Not modified.
            out: [size of ``rows``] vector to write to; must not overlap ``base``.
            factor: see :meth:`product`.
            scale: see :meth:`product`.

        Returns:
            Partial sums [k >= 1] of the inner product of ``base`` and ``out``, over the parts that
            this process keeps.
        """
        partials = self._product(objective, rows, vectors, out, factor, None, scale, base, None)
        assert partials is not None
        return partials

    def cross_gradient(self, objective: K, player: K) -> Tensor:
        """Return the gradient of L_objective by the parameters of ``player``, without penalties."""
        layout = self.layouts[player]
        out = layout.new_vector()
        self.placement.gather(
            Pass(
                lambda: self._first[objective][player],
                self.params[player],
                layout,
                f"the gradient of the {objective} player's loss by the {player} player",
            ),
            out,
            factor=self.signs[objective],
        )
        return out

    def interaction(self, vectors: Mapping[K, Tensor]) -> dict[K, Tensor]:
        """Return ``H_o @ vectors``: for each player, the change of its gradient by others' moves.

        Cost: one backward pass per player.
        """
        return {
            player: self.product(
                player, player, {other: vectors[other] for other in vectors if other != player}
            )
            for player in self.params
        }

    def jacobian(self, vectors: Mapping[K, Tensor]) -> dict[K, Tensor]:
        """Return ``J @ vectors`` with ``J_ij = D_ij L_i``. Cost: one backward pass per player."""
        return {player: self.product(player, player, vectors) for player in self.params}

    def transposed(self, vectors: Mapping[K, Tensor]) -> dict[K, Tensor]:
        """Return ``J^T @ vectors``. Cost: one backward pass in all."""
        everything = [param for params in self.params.values() for param in params]
        layout = self.placement.message([*self.layouts.values()], ())
        signed = {p: v if self.signs[p] == 1 else -v for p, v in vectors.items()}
        derive = self._derivation({player: player for player in vectors}, signed, everything)
        out = layout.new_vector()
        self.placement.gather(Pass(derive, everything, layout, "a transposed product"), out)
        return split_players(out, self.layouts)

    def antisymmetric_transposed(self, vectors: Mapping[K, Tensor]) -> dict[K, Tensor]:
        """Return ``A^T @ vectors`` with ``A = (J - J^T) / 2``.

        Cost: one backward pass per player, and one more unless the game is zero-sum.
        """
        if self.is_zero_sum:
            # The diagonal blocks of J are symmetric and the rest is antisymmetric.
            return {player: flat.neg_() for player, flat in self.interaction(vectors).items()}
        straight, transposed = self.jacobian(vectors), self.transposed(vectors)
        return {p: transposed[p].sub_(straight[p]).div_(2) for p in self.params}

    def _product(
        self,
        objective: K,
        rows: K,
        vectors: Mapping[K, Tensor],
        out: Tensor,
        factor: float,
        weight: Tensor | None,
        scale: Tensor | None,
        base: Tensor | None,
        scratch: Tensor | None,
    ) -> Tensor | None:
        charts, inner, params = self._coordinates, vectors, self.params[rows]
        if charts is not None:
            # Apply scale and base after `pull`: they are in local coordinates.
            inner = {
                player: charts[player].push(vector if weight is None else vector * weight)
                for player, vector in vectors.items()
            }
            weight = None
        objectives = dict.fromkeys(vectors, objective)
        derive = self._derivation(objectives, inner, params, weight, scratch)
        phase = f"product {self.num_products}, for the {rows} player"
        partials = self.placement.gather(
            Pass(derive, params, self.layouts[rows], phase),
            out,
            scale=scale if charts is None else None,
            base=base if charts is None else None,
            factor=factor * self.signs[objective] / self._scale,
        )
        if charts is None:
            return partials
        local = charts[rows].pull(out)
        return add_to(base, local if scale is None else local * scale, out)

    def _derivation(
        self,
        objectives: Mapping[K, K],
        vectors: Mapping[K, Tensor],
        inputs: Sequence[Tensor],
        weight: Tensor | None = None,
        scratch: Tensor | None = None,
    ) -> Callable[[], Grads]:
        """Return a function that makes the backward pass of a product, without objectives' signs.

        Args:
            objectives: for each player of ``vectors``, the player whose objective is
                differentiated.
            vectors: seeds of the gradients, by player. All processes gather them together, even if
                one has nothing to differentiate.
            inputs: tensors to differentiate by.
            weight: see :meth:`product`.
            scratch: see :meth:`product`.
        """
        self.num_products += 1
        outputs: list[Tensor] = []
        seeds: list[Tensor] = []
        for player, vector in vectors.items():
            layout = self.layouts[player]
            if vector.shape != (layout.numel,):
                check_vector("vector", vector, layout.numel)
            tensors = self.placement.scatter(
                self.params[player],
                layout,
                vector,
                weight,
                scratch,
                phase=f"vector {self.num_products}, of the {player} player",
            )
            # Skip gradients without a graph (e.g. of a linear critic's bias): they are constant, so
            # their derivative is zero.
            for grad, tensor in zip(self._first[objectives[player]][player], tensors, strict=True):
                if grad is not None and grad.requires_grad:
                    outputs.append(grad)
                    seeds.append(tensor if tensor.dtype is grad.dtype else tensor.to(grad.dtype))
        if not outputs:
            return lambda: [None] * len(inputs)
        derive = partial(differentiate_once, _WHAT, outputs, inputs, seeds, retain_graph=True)
        return in_range(Range.PRODUCT, derive) if is_profiled() else derive


_WHAT = "A second derivative"
