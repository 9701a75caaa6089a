"""The gradient field of a game, and products with its Jacobian."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from compopt._checks import check_takes_part
from compopt._flat import FlatLayout
from compopt._profiling import Range, marked
from compopt._typing import PLAYERS, Player
from compopt.game import (
    Game,
    add_penalty,
    differentiate_once,
    loss_gradients,
)

K = TypeVar("K", bound=Hashable)
"""What players are called: ``"min"`` and ``"max"``, or their numbers."""


@dataclass(frozen=True)
class Objective(Generic[K]):
    """What one player minimises, ``sign * loss``.

    Attributes:
        sign: 1 or -1.
        grads: of the loss, by player and parameter; None where there is none.
    """

    sign: int
    grads: Mapping[K, Sequence[Tensor | None]]


class GradientField(Generic[K]):
    """The players' own gradients, and products with blocks of second derivatives.

    Player i minimises L_i. The field is ``xi = (grad_i L_i)_i``, its Jacobian J has the blocks
    ``J_ij = D_ij L_i``, and ``H_o`` is J without its diagonal blocks. Vectors are flat, one per
    player. Products need a field that was made with ``second_order=True``.

    Attributes:
        grads: per player, [size of the player] its own gradient, penalties included.
        is_zero_sum: whether the game has two players and one loss.
        num_products: backward passes made for products so far.
        without_gradient: per player, the places of parameters that its loss does not depend on.
    """

    def __init__(
        self,
        objectives: Mapping[K, Objective[K]],
        params: Mapping[K, Sequence[Tensor]],
        penalties: Mapping[K, Tensor | None],
        *,
        is_zero_sum: bool,
    ) -> None:
        self.is_zero_sum = is_zero_sum
        self.num_products = 0
        self._objectives = objectives
        self._params = params
        self._layouts = {player: FlatLayout.of(tensors) for player, tensors in params.items()}
        self.grads: dict[K, Tensor] = {}
        self.without_gradient: dict[K, tuple[int, ...]] = {}
        for player in params:
            penalty = penalties.get(player)
            own = objectives[player].grads[player]
            self.without_gradient[player] = check_takes_part(player, own, penalty)
            self.grads[player] = self.cross_gradient(player, player)
            if penalty is not None:
                add_penalty(
                    f"{player}_penalty",
                    penalty,
                    params[player],
                    self._layouts[player],
                    self.grads[player],
                )

    @property
    def players(self) -> tuple[K, ...]:
        """The players in order."""
        return tuple(self._params)

    def independent(self) -> list[tuple[K, K]]:
        """Return the pairs (i, j) of players such that the loss of i does not depend on j."""
        return [
            (player, other)
            for player, own in self._objectives.items()
            for other, grads in own.grads.items()
            if other != player and all(grad is None for grad in grads)
        ]

    def layout(self, player: K) -> FlatLayout:
        """Return the flat layout of ``player``'s parameters."""
        return self._layouts[player]

    def agree(self, flags: Tensor) -> Tensor:
        """Return the flags on which all processes that share the products act alike."""
        return flags

    def cross_gradient(self, objective: K, player: K) -> Tensor:
        """Return the gradient of L_objective by ``player``'s parameters, without penalties."""
        own = self._objectives[objective]
        flat = self._layouts[player].flatten(own.grads[player])
        return flat if own.sign == 1 else flat.neg_()

    def product(
        self,
        objective: K,
        rows: K,
        vectors: Mapping[K, Tensor],
        out: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> Tensor:
        """Return ``scale * sum_j D_(rows, j) L_objective @ vectors[j]``.

        Args:
            objective: whose loss is differentiated.
            rows: the player in whose space the result lies.
            vectors: by player, [size of the player]. Not modified.
            out: [size of ``rows``] where to write, a new vector if None.
            scale: [size of ``rows``] or None.

        Cost: one backward pass through the graphs of the players' gradients that ``vectors`` names.
        """
        products = self.differentiate(objective, rows, vectors)
        flat = self._layouts[rows].flatten(products, out, scale)
        return flat if self._objectives[objective].sign == 1 else flat.neg_()

    def differentiate(
        self, objective: K, rows: K, vectors: Mapping[K, Tensor]
    ) -> Sequence[Tensor | None]:
        """Return the product as tensors, None for zeros, and without the sign of the objective."""
        pairs = [
            pair
            for player, vector in vectors.items()
            for pair in self._weighted(objective, player, vector)
        ]
        return self._backward(pairs, self._params[rows])

    def interaction(self, vectors: Mapping[K, Tensor]) -> dict[K, Tensor]:
        """Return ``H_o @ vectors``: to each player, how others' moves change its own gradient.

        Cost: one backward pass per player.
        """
        return {
            player: self.product(
                player, player, {other: vectors[other] for other in vectors if other != player}
            )
            for player in self.players
        }

    def jacobian(self, vectors: Mapping[K, Tensor]) -> dict[K, Tensor]:
        """Return ``J @ vectors``. Cost: one backward pass per player."""
        return {player: self.product(player, player, vectors) for player in self.players}

    def transposed(self, vectors: Mapping[K, Tensor]) -> dict[K, Tensor]:
        """Return ``J^T @ vectors``. Cost: one backward pass in all."""
        pairs = [
            (grad, weight * self._objectives[player].sign)
            for player, vector in vectors.items()
            for grad, weight in self._weighted(player, player, vector)
        ]
        inputs = [param for params in self._params.values() for param in params]
        products = iter(self._backward(pairs, inputs))
        return {
            player: self._layouts[player].flatten([next(products) for _ in params])
            for player, params in self._params.items()
        }

    def antisymmetric_transposed(self, vectors: Mapping[K, Tensor]) -> dict[K, Tensor]:
        """Return ``A^T @ vectors`` with ``A = (J - J^T) / 2``.

        Cost: one backward pass per player, and one more unless the game is zero-sum.
        """
        if self.is_zero_sum:
            # The diagonal blocks are symmetric, and the rest of J is antisymmetric already.
            return {player: flat.neg_() for player, flat in self.interaction(vectors).items()}
        straight, transposed = self.jacobian(vectors), self.transposed(vectors)
        return {p: transposed[p].sub_(straight[p]).div_(2) for p in self.players}

    def _weighted(self, objective: K, player: K, vector: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the gradients by ``player`` that can be differentiated, with their weights."""
        # A gradient without a graph is constant: its derivative is zero.
        views = self._layouts[player].views(vector)
        return [
            (grad, view.to(grad.dtype))
            for grad, view in zip(self._objectives[objective].grads[player], views, strict=True)
            if grad is not None and grad.requires_grad
        ]

    @marked(Range.PRODUCT)
    def _backward(
        self, pairs: Sequence[tuple[Tensor, Tensor]], inputs: Sequence[Tensor]
    ) -> Sequence[Tensor | None]:
        self.num_products += 1
        if not pairs:
            return [None] * len(inputs)
        return differentiate_once(
            "A second derivative",
            [grad for grad, _ in pairs],
            inputs,
            grad_outputs=[weight for _, weight in pairs],
            retain_graph=True,
        )


@dataclass(frozen=True)
class GeneralGradients:
    """First derivatives of a general-sum game: what GameGradients is to a zero-sum one.

    Attributes:
        loss: the min player's, detached.
        max_loss: the max player's, which it minimises, detached.
        grad_min: [size of the min player] its own gradient, penalty included.
        grad_max: [size of the max player] likewise.
        mixed: products with blocks of second derivatives.
        without_gradient: as in :class:`~compopt.game.GameGradients`.
    """

    loss: Tensor
    max_loss: Tensor
    grad_min: Tensor
    grad_max: Tensor
    mixed: GradientField[Player]
    without_gradient: Mapping[Player, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def losses(self) -> tuple[Tensor, Tensor]:
        """Return what a step returns: the losses of both players."""
        return self.loss, self.max_loss


def differentiate_general(
    game: Game, params: Mapping[Player, Sequence[Tensor]], second_order: bool = True
) -> GeneralGradients:
    """Differentiate a general-sum game once, keeping the graphs for products.

    Args:
        game: with ``max_loss``.
        params: by player.
        second_order: whether to keep them.

    Cost: one backward pass of each loss by both players' parameters, one for each penalty.
    """
    assert game.max_loss is not None
    field = game_field(game, params, second_order=second_order)
    return GeneralGradients(
        loss=game.loss.detach(),
        max_loss=game.max_loss.detach(),
        grad_min=field.grads["min"],
        grad_max=field.grads["max"],
        mixed=field,
        without_gradient=field.without_gradient,
    )


@marked(Range.GRADIENTS)
def game_field(
    game: Game, params: Mapping[Player, Sequence[Tensor]], *, second_order: bool
) -> GradientField[Player]:
    """Differentiate a game of two players, zero-sum or general-sum.

    Args:
        game: the loss or losses and the penalties, with graphs.
        params: each player's tensors. ``.grad`` is left alone.
        second_order: whether to keep the graph for products.

    Raises:
        TypeError, ValueError: as :func:`~compopt.game.differentiate`.

    Cost: one backward pass for each loss and each penalty.
    """
    penalties: dict[Player, Tensor | None] = {"min": game.min_penalty, "max": game.max_penalty}
    if game.max_loss is not None:
        losses: dict[Player, Tensor] = {"min": game.loss, "max": game.max_loss}
        return losses_field(losses, params, penalties=penalties, second_order=second_order)
    everything = [param for player in PLAYERS for param in params[player]]
    grads = loss_gradients(
        "loss",
        game.loss,
        everything,
        create_graph=second_order,
        retain_graph=second_order or any(p is not None for p in penalties.values()),
    )
    split = len(params["min"])
    by_player: dict[Player, Sequence[Tensor | None]] = {"min": grads[:split], "max": grads[split:]}
    objectives: dict[Player, Objective[Player]] = {
        "min": Objective(1, by_player),
        "max": Objective(-1, by_player),
    }
    return GradientField(objectives, params, penalties, is_zero_sum=True)


@marked(Range.GRADIENTS)
def losses_field(
    losses: Mapping[K, Tensor],
    params: Mapping[K, Sequence[Tensor]],
    *,
    penalties: Mapping[K, Tensor | None] | None = None,
    second_order: bool,
) -> GradientField[K]:
    """Differentiate a game in which each player minimises a loss of its own.

    Args:
        losses: by player, scalars with graphs.
        params: by player.
        penalties: by player, scalars that are differentiated once, by that player alone.
        second_order: whether to keep the graphs for products; each loss is then differentiated by
            all players' parameters.

    Cost: one backward pass for each loss and each penalty.
    """
    objectives: dict[K, Objective[K]] = {}
    for player, loss in losses.items():
        wanted = params if second_order else {player: params[player]}
        name = f"{player}_loss" if isinstance(player, str) else f"losses[{player}]"
        grads = iter(
            loss_gradients(
                name,
                loss,
                [param for tensors in wanted.values() for param in tensors],
                create_graph=second_order,
                # The losses may share nodes.
                retain_graph=True,
            )
        )
        objectives[player] = Objective(
            1, {owner: [next(grads) for _ in tensors] for owner, tensors in wanted.items()}
        )
    return GradientField(objectives, params, penalties or {}, is_zero_sum=False)
